"""Requests made up by schemathesis from the API's description: none ends in a 5xx or is answered against it."""

from __future__ import annotations

import asyncio
import os
import re
import sys

import pytest

from core.ids import new_id
from tests.api.test_staff_administration import WHOLE, somebody
from tests.district import good, open_district
from tests.sampling import amount, dice, sample

pytestmark = pytest.mark.generated

SAMPLED = 12
"""Operations tried by each of the tests in an ordinary run."""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
CHECKS += "response_schema_conformance"
# Each ends the session that the rest of the run needs.
ENDING = ("delete_api_v1_session", "delete_api_v1_me", "delete_admin_api_v1_session")
# What changes who may do what: tried on a district of its own, by whoever may do it.
ADMINISTRATION = (
    "^/admin/api/v1/(me|session|staff|roles|units|categories|catalogue|filing-standards|routing|areas|delegations|"
    "camera-sources|cameras)(/|$)"
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("side", "paths", "but"),
    [("citizen", "^/api/v1/", None), ("staff", "^/(?!api/)", ADMINISTRATION)],
    ids=["as a citizen", "as staff, and what belongs to nobody"],
)
async def test_no_generated_request_is_answered_with_a_5xx_or_against_the_description(
    district, tmp_path, side, paths, but
):
    citizen = await district.citizen()
    who = citizen if side == "citizen" else await district.staff("duty_chief")
    number = await district.submit(citizen)
    await district.settled(number)
    # A number that exists, so that the answers to what succeeds are looked at as well.
    await generated(district, who, tmp_path, {"number": number}, await operations(district, paths, but))


@pytest.mark.long
async def test_no_generated_request_of_an_administrator_is_answered_with_a_5xx(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", worker=False) as district:
        who = await somebody(district, *WHOLE)
        colleague = await district.staff("collector")
        present = {"staff_id": colleague.facts["staff"]["staff_id"], "role_key": "assessor", "unit_key": "roads"}
        present |= {"category_key": "other", "rule_key": "rule_road_damage", "area_code": "990101001"}
        await generated(district, who, tmp_path, present, await operations(district, ADMINISTRATION))


async def operations(district, paths, but=None):
    """The ids of some operations on ``paths`` (``but`` some): another sample in each run, all of them in deep ones."""
    document = good(await district.http.get("/openapi.json"))
    found = [
        operation["operationId"]
        for path, item in document["paths"].items()
        for operation in item.values()
        if re.search(paths, path) and not (but and re.search(but, path))
    ]
    return sample(f"operations {paths}", [name for name in found if name not in ENDING], SAMPLED)


async def generated(district, who, folder, present, chosen):
    """Have requests made up to the ``chosen`` operations and their answers held against the description."""
    named = "".join(f'"path.{name}" = "{value}"\n' for name, value in present.items())
    (folder / "schemathesis.toml").write_text(f"[parameters]\n{named}")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")),
        *("run", f"{district.url}/openapi.json", "--header", f"Authorization: Bearer {who.token}"),
        *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing"),
        *(argument for name in chosen for argument in ("--include-operation-id", name)),
        *("--max-examples", str(amount(5, 15)), "--seed", str(dice("requests").randrange(2**31))),
        *("--suppress-health-check", "all", "--generation-database", "none", "--max-failures", "5"),
        *("--request-timeout", "120", "--warnings", "off", "--no-color"),
    ]
    # Beside the server's own loop, over a socket; from a folder of its own, where it may leave what it likes.
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "NO_PROXY": "*", "PYTHONUTF8": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await process.communicate())[0].decode("utf-8", "replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said[-6000:]
    assert re.search(r"[1-9]\d+ generated, [1-9]\d+ passed", said), said[-2000:]

"""A job reaches as far as its asker did: who reaches less, or elsewhere, neither sees nor stops it nor has its file."""

from __future__ import annotations

from typing import Any

import pytest_asyncio

from accounts.models import Role
from accounts.staff import StaffService
from core.ids import new_id
from tests.api.support import problem
from tests.api.test_exports import download, finished
from tests.api.test_staff_administration import DISTRICT, OTHER_STREET, STREET, somebody
from tests.district import Client, District
from tests.seeding import UNITS

GRID = f"{STREET}001001"


@pytest_asyncio.fixture(scope="module")
async def keeper(district):
    """The key of a role that exports and sees others' jobs."""
    permissions = ["report.view", "report.export", "job.view"]
    await district.services[StaffService].put_role(Role(key="job_keeper", name="任务管理", permissions=permissions))
    return "job_keeper"


async def exported(who: Client) -> str:
    """The id of an export that is done."""
    return str((await finished(who, (await who.post("/exports"))["job_id"]))["job_id"])


async def waiting(district: District, like: str) -> str:
    """A job as ``like``, which no worker takes up."""
    jobs, job_id = district.services.database["jobs"], new_id()
    found = await jobs.find_one({"_id": like})
    assert found is not None
    document = {**found, "_id": job_id, "state": "queued", "owed": [], "file": None}
    await jobs.insert_one(document)
    return job_id


async def seen(who: Client) -> set[str]:
    """The jobs that are listed to ``who``, on all pages."""
    found: set[str] = set()
    more: dict[str, Any] = {}
    while True:
        page = await who.get("/jobs", everyone=True, size=50, **more)
        found |= {job["job_id"] for job in page["jobs"]}
        if page["next_page"] is None:
            return found
        more = {"page": page["next_page"]}


async def test_who_reaches_as_far_as_the_asker_did_sees_the_job_and_nobody_else(district, keeper):
    of = {
        "district": await somebody(district, keeper),
        "street": await somebody(district, keeper, areas=[STREET]),
        "grid": await somebody(district, keeper, areas=[GRID]),
        "other street": await somebody(district, keeper, areas=[OTHER_STREET]),
        "both streets": await somebody(district, keeper, areas=[STREET, OTHER_STREET]),
        "unit": await somebody(district, keeper, unit=UNITS[0]),
        "other unit": await somebody(district, keeper, unit=UNITS[1]),
    }
    within = {
        "district": {"district"},
        "street": {"district", "street", "both streets"},
        "grid": {"district", "street", "both streets", "grid"},
        "other street": {"district", "other street", "both streets"},
        "both streets": {"district", "both streets"},
        "unit": {"district", "unit"},
        "other unit": {"district", "other unit"},
    }
    jobs = {name: await exported(who) for name, who in of.items()}
    held = {name: await waiting(district, job) for name, job in jobs.items()}
    try:
        for viewer, who in of.items():
            assert await seen(who) & set(jobs.values()) == {jobs[o] for o in jobs if viewer in within[o]}, viewer
            for owner, job in jobs.items():
                queued = held[owner]
                calls = [
                    await who.call("GET", f"/jobs/{job}"),
                    await download(who, job),
                    *([] if viewer == "district" else [await who.call("POST", f"/jobs/{queued}/cancel", json={})]),
                ]
                if viewer in within[owner]:
                    assert [a.status_code for a in calls] == [200] * len(calls), (viewer, owner)
                else:
                    for answer in calls:
                        problem(answer, 404, "NO_SUCH_JOB")
        # What was stopped above is stopped again; the district stops what is left.
        for owner, queued in held.items():
            assert (await of["district"].post(f"/jobs/{queued}/cancel"))["state"] == "cancelled", owner
    finally:
        await district.services.database["jobs"].delete_many({"_id": {"$in": list(held.values())}})


async def test_who_reaches_less_than_when_they_asked_keeps_the_job_and_not_its_file(district, keeper):
    who = await somebody(district, keeper, areas=[DISTRICT])
    job = await exported(who)
    assert (await download(who, job)).status_code == 200
    staff = district.services.database["staff"]
    for moved in ({"areas": [STREET]}, {"areas": [DISTRICT], "unit_id": UNITS[0]}):
        await staff.update_one({"_id": who.facts["staff_id"]}, {"$set": moved})
        assert (await who.get(f"/jobs/{job}"))["state"] == "done"
        problem(await download(who, job), 403, "JOB_BEYOND_REACH")
    refused = {"action": "job.download", "object.id": job, "result": "refused"}
    assert await district.services.database["audit"].count_documents(refused) == 2
    await staff.update_one({"_id": who.facts["staff_id"]}, {"$set": {"areas": [DISTRICT], "unit_id": None}})
    assert (await download(who, job)).status_code == 200
    # What an earlier version was asked for, which kept no reach, may hold all of the district.
    await district.services.database["jobs"].update_one({"_id": job}, {"$unset": {"reach": ""}})
    assert (await download(who, job)).status_code == 200
    await staff.update_one({"_id": who.facts["staff_id"]}, {"$set": {"areas": [STREET]}})
    problem(await download(who, job), 403, "JOB_BEYOND_REACH")

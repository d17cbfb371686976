"""What rooms say of themselves agrees with itself and with what is written down."""

from __future__ import annotations

import re

import pytest

from core.database import merge_indexes
from core.room import Room
from server.rooms import ROOMS, path_parameters_of, routes_of, settings_of
from tests import ROOT


def written() -> dict[str, bool]:
    """The collections in the table of docs/architecture.md, and whether each is sharded."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    table = text[text.index("## Collections and their shard keys") : text.index("## Security and privacy")]
    found: dict[str, bool] = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            names, _, key, _ = (cell.strip() for cell in line.strip("|").split("|"))
            found |= dict.fromkeys(re.findall(r"`([a-z_]+)`", names), "hashed" in key)
    return found


def test_every_collection_is_written_down_with_its_shard_key():
    stored = merge_indexes(room.indexes for room in ROOMS)
    sharded = {name for room in ROOMS for name in room.sharded}
    assert sharded <= stored.keys()
    assert {name: written().get(name) for name in stored} == {name: name in sharded for name in stored}


def test_every_parameter_of_an_address_is_used_and_known():
    assert {name for route in routes_of(ROOMS) for name in route.parameters} == path_parameters_of(ROOMS).keys()
    assert len({route.path for route in routes_of(ROOMS)}) == len(routes_of(ROOMS)), "two rooms serve one address"


def test_the_description_begins_with_citizens_and_ends_with_the_system():
    tags = list(dict.fromkeys(route.tag.partition(":")[0] for route in routes_of(ROOMS)))
    assert (tags[:2], tags[-1]) == (["Citizen", "Staff"], "System")


def test_two_rooms_cannot_have_the_same_collection_parameter_or_section():
    again = Room(name="again", indexes=ROOMS[0].indexes, path_parameters=ROOMS[0].path_parameters)
    with pytest.raises(ValueError, match="idempotency"):
        merge_indexes(room.indexes for room in (*ROOMS, again))
    with pytest.raises(ValueError, match="again"):
        path_parameters_of((*ROOMS, again))
    with pytest.raises(ValueError, match="server"):
        settings_of([Room(name="mine", settings={"server": type(settings_of(ROOMS)().server)})])


def test_every_decision_is_in_the_index_with_its_title():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text("utf-8").lower()
    for file in sorted(folder.glob("0*.md")):
        title = re.sub(r"^# 0*\d+[.:] ", "", file.read_text("utf-8").partition("\n")[0])
        assert f"[{title.lower()}]({file.name})" in index, "a line is missing in docs/decisions/README.md"

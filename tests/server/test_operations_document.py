"""docs/operations.md tells of every figure and key that there is, and of no figure or command that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

from core.config_sections import Keys
from server.__main__ import _COMMANDS
from server.rooms import ROOMS, routes_of
from tests import ROOT

TEXT = (Path(ROOT) / "docs" / "operations.md").read_text("utf-8")


def test_every_figure_is_explained_under_its_own_name():
    told = set(re.findall(r"^\| `(gongzhi_[a-z_]+)`", TEXT, re.MULTILINE))
    routes_of(ROOMS)  # what is imported by then declares its figures
    declared = {m.name + ("_total" if m.type == "counter" else "") for m in REGISTRY.collect()}
    assert told == {name for name in declared if name.startswith("gongzhi_")}


def test_the_commands_that_are_named_exist():
    told = set(re.findall(r"python -m server (\w+)", TEXT))
    assert {"backup", "restore", "migrate", "check", "app", "worker"} <= told <= _COMMANDS.keys()


def test_every_key_has_its_line_on_turning_it_over():
    for name in Keys.model_fields:
        assert re.search(rf"^\| .*`keys\.{name}`", TEXT, re.MULTILINE), name

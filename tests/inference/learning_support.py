"""A database of its own with labels of a district that speaks its own way, and the commands run as programs."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from core.config import Settings
from core.database import Database, connect
from core.ids import new_id
from inference.examples import held_out
from inference.labels import LabelService
from inference.model_files import MODELS
from inference.model_reloader import following
from inference.model_store import ModelStore
from inference.promotions import Promotions
from inference.service import InferenceService
from tests.inference.support import ROOT

BY = {"kind": "staff", "id": "s1", "name": "王"}
AT = datetime(2026, 3, 1, tzinfo=UTC)

# In this district people call their street lights by a name that no other text uses, and the shops' goods by another.
STREET_LIGHT = "青龙柱", ("又灭了", "不亮很久了", "晚上一闪一闪", "歪了没人管", "已经坏了三天")
SHOPS = "摆摊墩", ("又占了人行道", "堵着门口", "天天摆出来", "太多走不过去", "占着盲道")
WHERE = ("小区门口", "学校旁边", "菜场东侧", "桥头", "公园北门", "医院对面", "车站出口", "河边步道")


def words(seed: int) -> tuple[str, str]:
    """What somebody writes, and what it is about."""
    rng = random.Random(seed)
    (name, happens), label = rng.choice([(STREET_LIGHT, "street_light"), (SHOPS, "shop_encroachment")])
    return f"{rng.choice(WHERE)}{rng.choice('一二三四五六七八九')}号的{name}{rng.choice(happens)}", label


async def labelled(database: Database, count: int, *, first: int = 0, wrong: bool = False) -> None:
    """``count`` cases with labels, numbered from ``first`` on.

    ``wrong``: mixed up in those that are learnt from, right in those held out.
    """
    labels = LabelService(database)
    for n in range(first, first + count):
        number, (text, label) = f"R{n:05}", words(n)
        report = {"_id": number, "description": text, "channel": "hotline", "reporter": {"citizen_id": None}}
        await database["reports"].insert_one(report)
        if wrong and not held_out(number):
            label = "manhole"
        await labels.record("text", {"report": number}, label, source="staff_corrected", by=BY, at=AT)


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m inference`` with ``arguments``, as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", "inference", *arguments],
        cwd=ROOT, env=dict(environment), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


class Learning:
    """A database of its own with labels, and the folders for models."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.name, self.folder = url, f"test_{new_id()}", folder
        self.settings = Settings(
            mongodb={"url": url, "database": self.name},
            folders={"data": folder},
            photos={"store": (folder / "photos").as_uri()},
            snapshots={"store": (folder / "snapshots").as_uri()},
            inference={"follow_seconds": 0.1},
        )
        self.database = connect(url, self.name)
        self.promotions = Promotions(self.database)
        self.store = ModelStore.of(self.settings)

    @property
    def environment(self) -> dict[str, str]:
        """What the commands are given."""
        return {
            **os.environ,
            "MONGODB_URL": self.url,
            "GONGZHI_MONGODB__DATABASE": self.name,
            "GONGZHI_FOLDERS__DATA": str(self.folder),
            "GONGZHI_PHOTOS__STORE": self.settings.photos.store,
            "GONGZHI_SNAPSHOTS__STORE": self.settings.snapshots.store,
            "COLUMNS": "200",
        }

    async def labelled(self, count: int, *, first: int = 0, wrong: bool = False) -> None:
        """See :func:`labelled`."""
        await labelled(self.database, count, first=first, wrong=wrong)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """See :func:`run`."""
        return run(self.environment, *arguments)

    async def trained(self) -> str:
        """A candidate, trained by the command."""
        done = await asyncio.to_thread(self.run, "train")
        assert done.returncode == 0, done.stderr
        return done.stdout.split(":")[0]

    @asynccontextmanager
    async def judging(self) -> AsyncIterator[InferenceService]:
        """A process's service, following what is promoted."""
        service = InferenceService(MODELS)
        try:
            async with following(self.settings, self.database, service):
                yield service
        finally:
            service.close()

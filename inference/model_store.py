"""The models that were trained here: folders that never change, named by what is in them, beside the product's own.

A folder holds all that judges (networks, corrections and the ``models.json`` that lists them with their SHA-256) and
``candidate.json``: when, by whom, from what and on which labels it was trained. A folder appears whole, by a rename.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from core.clock import is_stale
from core.config import CONFIG_FILE, Settings
from core.errors import NotFound
from core.ids import new_id
from core.storage.object_store import sync
from inference.model_files import ModelUnavailable, verify

_ID = re.compile(r"^[0-9a-f]{16}$")
_STALE_SECONDS = 24 * 3600
OWN = "own"
"""What stands for the product's own models where an id is shown or given."""


class ModelStore:
    """``own``: the folder of the product's models; ``folder``: where those trained here are kept.

    Ids are 16 hex digits; None and :data:`OWN` are the product's own.
    """

    def __init__(self, own: Path, folder: Path) -> None:
        self.own = own
        self._folder = folder

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that ``settings`` say, relative to the project's folder."""
        trained = settings.inference.trained or settings.folders.data / "models"
        return cls(CONFIG_FILE.parent / settings.inference.folder, CONFIG_FILE.parent / trained)

    def folder(self, model_id: str | None) -> Path:
        """Where the models ``model_id`` are, whether they are there or not."""
        if model_id is None or model_id == OWN:
            return self.own
        if not _ID.match(model_id):
            raise NotFound(f"没有这个模型：{model_id}", code="NO_SUCH_MODEL")
        return self._folder / model_id

    def verified(self, model_id: str | None) -> Path:
        """The folder of ``model_id``, every file of it whole. Raises :class:`ModelUnavailable`."""
        folder = self.folder(model_id)
        try:
            verify(folder)
        except ModelUnavailable as error:
            raise ModelUnavailable(f"{model_id or OWN}/{error.file}", error.reason) from error
        return folder

    def about(self, model_id: str) -> dict[str, Any]:
        """How ``model_id`` was trained. Raises :class:`NotFound`."""
        try:
            about: dict[str, Any] = json.loads((self.folder(model_id) / "candidate.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotFound(f"没有这个模型：{model_id}", code="NO_SUCH_MODEL") from error
        return about

    def all(self) -> list[dict[str, Any]]:
        """How each model that is kept was trained, the newest first."""
        if not self._folder.is_dir():
            return []
        found = [self.about(path.name) for path in self._folder.iterdir() if _ID.match(path.name)]
        return sorted(found, key=lambda about: str(about["at"]), reverse=True)

    def newest(self) -> str:
        """The id of the model trained last. Raises :class:`NotFound`."""
        found = self.all()
        if not found:
            raise NotFound("还没有训练过模型，请先运行 train。", code="NO_SUCH_MODEL")
        return str(found[0]["id"])

    def add(
        self,
        *,
        base: str,
        beside: str | None,
        trained: Mapping[str, Mapping[str, bytes]],
        about: Mapping[str, Any],
    ) -> str:
        """Keep the product's network ``base`` with corrections, and what else ``beside`` has; the new model's id.

        ``trained``: by kind (``texts``, ``photos``; ``base`` alone is given), packed corrections by task. The same
        networks and corrections are the same model, and kept once. ``about`` is written into ``candidate.json``.
        """
        own, others = self._listed(None), self._listed(beside)
        entries = {**others, base: {**own[base], "corrections": {}}}
        sources = {entry["file"]: self.folder(beside if kind != base else None) for kind, entry in entries.items()}
        for kind, entry in others.items():
            if kind != base:
                kept = {file["file"]: self.folder(beside) for file in entry.get("corrections", {}).values()}
                sources.update(kept)
        written: dict[str, bytes] = {}
        for task, packed in trained[base].items():
            name = f"{base}-{task}.npz"
            written[name] = packed
            entries[base]["corrections"][task] = {"file": name, "sha256": hashlib.sha256(packed).hexdigest()}
        listed = json.dumps(entries, ensure_ascii=False, indent=1, sort_keys=True)
        model_id = hashlib.sha256(listed.encode()).hexdigest()[:16]
        target = self._folder / model_id
        if target.is_dir():
            return model_id
        self._clear()
        making = self._folder / f".{new_id()}"
        making.mkdir(parents=True)
        try:
            for name, source in sources.items():
                shutil.copyfile(source / name, making / name)
            for name, packed in written.items():
                (making / name).write_bytes(packed)
            (making / "models.json").write_text(listed, encoding="utf-8")
            told = json.dumps({"id": model_id, **about}, ensure_ascii=False, indent=1)
            (making / "candidate.json").write_text(told, encoding="utf-8")
            sync(making, [path.name for path in making.iterdir()])
            making.rename(target)
            sync(self._folder, [])
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        return model_id

    def _clear(self) -> None:
        """Delete what trainings that were killed have left behind."""
        for left in self._folder.glob(".*"):
            if is_stale(left.stat().st_mtime, _STALE_SECONDS):
                shutil.rmtree(left, ignore_errors=True)

    def _listed(self, model_id: str | None) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads((self.verified(model_id) / "models.json").read_text(encoding="utf-8"))
        return entries

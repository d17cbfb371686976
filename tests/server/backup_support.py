"""What the tests of backups share."""

from __future__ import annotations

from pathlib import Path

from core.config import Settings
from core.ids import new_id


def elsewhere(settings: Settings, folder: Path, *, log_apart: bool = True) -> Settings:
    """``settings`` with another database, one for the audit log beside it, and other stores, in ``folder``."""
    name = f"restored_{new_id()}"
    put = {"database": name, "audit_database": f"{name}_audit" if log_apart else None}
    return settings.model_copy(
        update={
            "mongodb": settings.mongodb.model_copy(update=put),
            **{
                store: getattr(settings, store).model_copy(update={"store": (folder / store).as_uri()})
                for store in ("photos", "files", "snapshots")
            },
            "folders": settings.folders.model_copy(update={"data": folder}),
        }
    )


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

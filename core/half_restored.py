"""A database that a restore has not brought to its end: nobody may work on half of one."""

from __future__ import annotations

from typing import Final

from pymongo.errors import OperationFailure

from core.config import ConfigurationError
from core.database import UNAUTHORIZED, Database

RESTORING: Final = "restoring"
"""The collection that is there while a database is being restored."""
RESTORE: Final = "restore"
"""The ``_id`` of its one document."""


class HalfRestored(ConfigurationError):
    """A restore is at the database, or was broken off."""


async def refuse_half_restored(*databases: Database) -> None:
    """Raise :class:`HalfRestored` where a restore has not come to its end.

    A database whose marks this user may not read is passed over: a restore marks the audit log's as well, so that its
    keeper, who may read no other, is told too.
    """
    for database in databases:
        try:
            left = await database[RESTORING].find_one()
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            continue
        if left is not None:
            raise HalfRestored(
                f"the database {database.name} is being restored from {left['from']}, or that was broken off; "
                "`python -m server restore --again` goes through with it"
            )

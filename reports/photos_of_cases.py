"""What cases are told of the photos that they hold. Each may be told again, late or by two at once."""

from __future__ import annotations

from collections.abc import Sequence

from core.queue.debts import Document
from core.room import PhotoHolder
from core.services import Services
from photos.marks import marks_of
from photos.service import is_blurred


async def tell_verdict(services: Services, numbers: Sequence[str], photo: Document) -> None:
    """Note WeChat's verdict on the photo on the cases."""
    await services.database["reports"].update_many(
        {"_id": {"$in": list(numbers)}}, {"$set": {f"photo_verdicts.{photo['_id']}": photo["check"]["verdict"]}}
    )


async def tell_blurred(services: Services, numbers: Sequence[str], photo: Document) -> None:
    """Note on the cases that the public picture is there (True, or its revision), or that it was withdrawn."""
    reports, name, these = services.database["reports"], f"photos_blurred.{photo['_id']}", {"$in": list(numbers)}
    # A worker who was held up with this takes nothing back that has been made meanwhile: only earlier ones change.
    if is_blurred(photo):
        revision = photo["blurred"].get("revision", 0)
        unless_later = {"$not": {"$gt": revision}}  # True is no number: not later than any
        await reports.update_many({"_id": these, name: unless_later}, {"$set": {name: revision or True}})
    elif revision := marks_of(photo)["revision"]:
        earlier = {"$in": [True, *range(1, revision)]}
        await reports.update_many({"_id": these, name: earlier}, {"$unset": {name: ""}})


HOLDER = PhotoHolder(tell_verdict, tell_blurred)

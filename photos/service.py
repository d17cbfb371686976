"""Photos (照片): taken in once, owned by who uploaded them, shown by signed links, checked by WeChat.

There are two pictures of each: the original, as it was handed in, and the public one, in which faces and number plates
are blurred. A link is to the public one unless the original is asked for by name. Until the worker has looked for faces
and plates (the debt ``blur``) there is no public one, and its links lead to nothing. What people change in it is in
:mod:`photos.marks`.

A photo belongs to nothing until something attaches it; what nobody attaches is deleted after a day. The service knows
no domain: what a photo is attached to is a kind and an id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple, get_args

import structlog
from pymongo import ASCENDING, IndexModel

from core.clock import now
from core.config_sections import Photos as PhotoSettings
from core.database import Database
from core.encryption import Signer
from core.errors import Forbidden, Invalid, NotFound
from core.ids import first_id, new_id
from core.queue.debts import KINDS_INDEX, OWED_INDEX, Amendment, Document, Payment, owe
from core.wechat import NotRecentlyActive, Scene, WeChat
from photos.pictures import Look, SizeName, read_picture
from photos.store import PUBLIC_NAMES, FileName, PhotoStore, key_of

log = structlog.get_logger(__name__)

Verdict = Literal["pending", "pass", "review", "risky", "unchecked"]

INDEXES = {
    "photos": [
        OWED_INDEX,
        KINDS_INDEX,
        IndexModel([("check.trace_id", ASCENDING)], name="trace", sparse=True),
        IndexModel([("owner.id", ASCENDING)], name="owner"),
        # Only what nothing has claimed is in it: the daily clearing reads no more than it deletes.
        IndexModel([("created_at", ASCENDING)], name="unattached", partialFilterExpression={"attached_to": None}),
        # Only what has no public picture yet, of whatever age: photos of before there were any, too.
        IndexModel(
            [("blurred", ASCENDING), ("created_at", ASCENDING)],
            name="not_blurred",
            partialFilterExpression={"blurred": None},
        ),
    ]
}

# WeChat pushes its verdict within 30 minutes; past that it is asked again.
_VERDICT_WITHIN = timedelta(minutes=35)
_CHECK_ROUNDS = 5
# Takes the worker a second; this long only when it is away, cannot read its weights, or thousands came at once.
_BLURRED_WITHIN = timedelta(minutes=15)
_USED: dict[str, Any] = {
    **dict.fromkeys(("created_at", "check.verdict", "position", "taken_at", "perceptual_hash"), 1),
    "attached_to": {"$slice": 1},  # whether anything has it, not all that do
}
_SIZES: tuple[SizeName, ...] = get_args(SizeName)
_SIZE_OF: dict[str, SizeName] = {name: size for size, name in PUBLIC_NAMES.items()}


class Standing(NamedTuple):
    """How a photo stands: WeChat's verdict on it, and whether there is a public picture of it."""

    verdict: Verdict
    blurred: bool


def is_blurred(photo: Document) -> bool:
    """Whether the public picture of ``photo`` is there: neither is it still to be made, nor can it not be made."""
    blurred = photo.get("blurred")
    return blurred is not None and blurred.get("problem") is None


def files_of(photo: Document) -> list[str]:
    """What the store calls the files that the document of ``photo`` promises to be there."""
    files = [key_of(photo["_id"], size, 0) for size in _SIZES]
    if is_blurred(photo) and photo["blurred"]["changed"]:
        revision = photo["blurred"].get("revision", 0)
        files += [key_of(photo["_id"], name, revision) for name in PUBLIC_NAMES.values()]
    return files


class PhotoService:
    """Takes photos in, hands them out, and follows their content check."""

    def __init__(
        self,
        database: Database,
        store: PhotoStore,
        wechat: WeChat,
        signer: Signer,
        settings: PhotoSettings,
        public_url: str,
        *,
        also_owed: Sequence[str] = (),
    ) -> None:
        """``also_owed``: the kinds of debts that every photo owes from the first beside WeChat's check."""
        self._photos = database["photos"]
        self._also_owed = tuple(also_owed)
        self._store = store
        self._wechat = wechat
        self._signer = signer
        self._settings = settings
        self._public_url = public_url.rstrip("/")
        # Decoding is the one thing here that takes a core for milliseconds: a bounded number at a time, off the loop.
        self._decoding = asyncio.Semaphore(settings.threads)

    async def take(
        self, data: bytes, owner: dict[str, str], *, openid: str | None = None, verdict: Verdict = "pass"
    ) -> Document:
        """Check, strip, resize and keep a photo; its document.

        ``owner`` is {kind, id}. With ``openid`` the photo is a citizen's, and WeChat's content check is owed; without,
        there is nobody to check it for, and ``verdict`` is what it counts as. Raises what
        :func:`photos.pictures.read_picture` raises.
        """
        async with self._decoding:
            picture = await asyncio.to_thread(read_picture, data)
        photo_id = new_id()
        # The files come first: a document never promises a file that is not there. A crash between the two leaves files
        # that no document names; they hold no name and are never served.
        await self._store.put(photo_id, picture.sizes)
        document: Document = {
            "_id": photo_id,
            "owner": owner,
            "attached_to": None,
            "created_at": now(),
            "kind": picture.kind,
            "width": picture.width,
            "height": picture.height,
            "bytes": len(data),
            "sha256": picture.sha256,
            "perceptual_hash": picture.perceptual_hash,
            "taken_at": picture.taken_at,
            "position": list(picture.position) if picture.position else None,
            "openid": openid,
            "check": {"verdict": "pending" if openid else verdict},
            "blurred": None,
            "owed": [owe(kind) for kind in (*(("check",) if openid else ()), *self._also_owed)],
        }
        await self._photos.insert_one(document)
        return document

    async def usable(self, photo_ids: Sequence[str], owner: dict[str, str]) -> list[Document]:
        """The documents of ``photo_ids`` in that order.

        Raises :class:`Invalid` when one is given twice, is not this owner's or does not exist: which of the two is not
        told, so that ids cannot be tried out.
        """
        if len(set(photo_ids)) != len(photo_ids):
            raise Invalid("同一张照片提交了两次，请检查。", code="PHOTO_REPEATED")
        query = {"_id": {"$in": list(photo_ids)}, "owner.id": owner["id"], "owner.kind": owner["kind"]}
        found = {p["_id"]: p async for p in self._photos.find(query, _USED)}
        missing = [p for p in photo_ids if p not in found]
        # An hour's margin: a photo that the clearing is about to delete is not accepted any more.
        oldest = now() - timedelta(hours=self._settings.keep_unused_hours - 1)
        stale = [p["_id"] for p in found.values() if p["attached_to"] is None and p["created_at"] < oldest]
        if missing or stale:
            raise Invalid(
                "照片不存在或已过期，请重新上传。", code="PHOTO_UNKNOWN", details={"photo_ids": missing + stale}
            )
        return [found[p] for p in photo_ids]

    async def known(self, photo_ids: Sequence[str]) -> dict[str, Document]:
        """What is known of those of ``photo_ids`` that there still are, whoever owns them, by id."""
        return {p["_id"]: p async for p in self._photos.find({"_id": {"$in": list(photo_ids)}}, _USED)}

    async def looks(self, photo_ids: Sequence[str]) -> dict[str, Look]:
        """By id, what can be compared of the photos ``photo_ids``, in that order; those that are gone are left out."""
        if not photo_ids:
            return {}
        fields = {"perceptual_hash": 1, "seen.embedding": 1, "seen.model": 1}
        found = {p["_id"]: p async for p in self._photos.find({"_id": {"$in": list(photo_ids)}}, fields)}
        seen = {photo_id: p.get("seen") or {} for photo_id, p in found.items()}
        return {
            p: Look(found[p]["perceptual_hash"], seen[p].get("embedding"), seen[p].get("model"))
            for p in photo_ids
            if p in found
        }

    async def attach(self, photo_ids: Sequence[str], to: dict[str, str]) -> dict[str, Standing]:
        """Mark the photos as used by ``to`` ({kind, id}); how each stands now. May be repeated.

        A photo may be used more than once by its owner: ``attached_to`` is None, or all that use it.
        """
        among = {"_id": {"$in": list(photo_ids)}}
        first = await self._photos.update_many({**among, "attached_to": None}, {"$set": {"attached_to": [to]}})
        if first.modified_count < len(photo_ids):
            await self._photos.update_many(among, {"$addToSet": {"attached_to": to}})
        found = self._photos.find(among, {"check.verdict": 1, "blurred.problem": 1})
        return {p["_id"]: Standing(p["check"]["verdict"], is_blurred(p)) async for p in found}

    async def seen(self, photo_ids: Sequence[str]) -> list[Document]:
        """Of each of ``photo_ids`` that exists ``seen``, what it shows if that is known, and ``owed``, what it owes."""
        cursor = self._photos.find({"_id": {"$in": list(photo_ids)}}, {"seen": 1, "owed": 1})
        found = {p["_id"]: dict(p) async for p in cursor}
        return [found[p] for p in photo_ids if p in found]

    async def content(self, photo_id: str, size: SizeName) -> bytes:
        """The JPEG of a photo as it was handed in, in one size. Raises :class:`NotFound` if it is gone."""
        return await self._store.get(photo_id, size)

    async def keep_public(self, photo_id: str, sizes: Mapping[SizeName, bytes], revision: int = 0) -> None:
        """Keep the public picture of a photo beside its original, in place of those of earlier revisions.

        The photo's document says later that it is there.
        """
        if revision:
            await self._store.delete_public(photo_id, revisions=revision)
        files = {PUBLIC_NAMES[size]: content for size, content in sizes.items()}
        await self._store.put(photo_id, files, revision=revision)

    async def owe_blurring(self, most: int) -> int:
        """Have the worker blur stored photos that nobody has asked it to, the newest ``most`` at most; how many.

        Called again and again it goes on only as fast as the worker does.
        """
        newest = self._photos.find({"blurred": None}, {"owed.kind": 1}).sort([("blurred", -1), ("created_at", -1)])
        waiting = [p["_id"] async for p in newest.limit(most) if "blur" not in {d["kind"] for d in p.get("owed") or ()}]
        if not waiting:
            return 0
        among = {"_id": {"$in": waiting}, "blurred": None, "owed.kind": {"$ne": "blur"}}
        return int((await self._photos.update_many(among, {"$push": {"owed": owe("blur")}})).modified_count)

    async def blurring_is_late(self) -> bool:
        """Whether a photo of today has waited so long for its public picture that something must be wrong."""
        late = now() - _BLURRED_WITHIN
        # By its id too: what was dated back, as the demo's photos are, has not been waiting since then.
        waiting = {
            "blurred": None,
            "created_at": {"$gte": now() - timedelta(days=1), "$lt": late},
            "_id": {"$lt": first_id(int(late.timestamp() * 1000))},
            "marks.at": {"$not": {"$gte": late}},
        }
        return await self._photos.find_one(waiting, {"_id": 1}) is not None

    async def not_blurred(self) -> int:
        """How many photos have no public picture yet."""
        return int(await self._photos.count_documents({"blurred": None}, hint="not_blurred"))

    def link(
        self,
        photo_id: str,
        size: SizeName,
        *,
        original: bool = False,
        life: timedelta | None = None,
        revision: int = 0,
    ) -> str:
        """An address under which anyone who is given it sees the photo for a while, in this size alone.

        With ``original`` it is the photo as it was handed in: for who took it, and for whom the audit log names.
        Links made within the same quarter of their life are equal, so that phones and caches keep what they have.
        Whatever ``revision`` of the public picture a link names, it opens the present one: it is there for those who
        have kept an earlier one.
        """
        link = self._link(photo_id, size if original else PUBLIC_NAMES[size], self._expiry(life))
        return f"{link}&revision={revision}" if revision and not original else link

    def links(
        self, photo_id: str, *, original: bool = False, life: timedelta | None = None, revision: int = 0
    ) -> dict[SizeName, str]:
        """The link of each size; as :meth:`link` makes them."""
        return {s: self.link(photo_id, s, original=original, life=life, revision=revision) for s in _SIZES}

    def _expiry(self, life: timedelta | None) -> int:
        seconds = int((life or timedelta(minutes=self._settings.url_minutes)).total_seconds())
        step = max(seconds // 4, 1)
        return (int(now().timestamp()) // step + 5) * step

    def _link(self, photo_id: str, name: FileName, expires: int) -> str:
        signature = self._signer.sign(f"{photo_id}/{name}/{expires}")
        return f"{self._public_url}/photos/{photo_id}/{name}?expires={expires}&signature={signature}"

    async def read(self, photo_id: str, name: FileName, expires: int, signature: str) -> bytes:
        """The JPEG behind a link. Raises :class:`Forbidden` for a forged or expired one, :class:`NotFound` if gone,
        or not blurred yet."""
        if not self._signer.check(f"{photo_id}/{name}/{expires}", signature) or expires < now().timestamp():
            raise Forbidden("照片链接已失效，请刷新页面。", code="PHOTO_LINK")
        size = _SIZE_OF.get(name)
        if size is None:
            return await self._store.get(photo_id, name)
        # The document says what there is to be seen, never the store: a file left by a worker that died counts for
        # nothing.
        fields = dict.fromkeys(("blurred.changed", "blurred.problem", "blurred.revision"), 1)
        photo = await self._photos.find_one({"_id": photo_id}, fields)
        if photo is None or not is_blurred(photo):
            raise NotFound("照片正在处理，请稍后再看。", code="PHOTO_NOT_READY")
        if not photo["blurred"]["changed"]:
            return await self._store.get(photo_id, size)
        return await self._store.get(photo_id, name, revision=photo["blurred"].get("revision", 0))

    async def pay_check(self, photo: Document, _debt: Document) -> Payment:
        """Ask WeChat to check the photo; the verdict comes by push, and is asked for again when it does not come."""
        check = photo["check"]
        if check["verdict"] != "pending":
            return Payment()
        if photo["openid"] is None:  # whoever took it has deleted their account: there is nobody to check it for
            return Payment(self._judged("unchecked", "the account was deleted"))
        if check.get("rounds", 0) >= _CHECK_ROUNDS:
            log.warning("photo.unchecked", photo=photo["_id"])
            return Payment(self._judged("unchecked", "no verdict came"))
        try:
            trace_id = await self._wechat.check_picture(
                photo["openid"], Scene.SOCIAL_LOG, self.link(photo["_id"], "large", original=True, life=_VERDICT_WITHIN)
            )
        except NotRecentlyActive:
            return Payment(self._judged("unchecked", "the citizen was not active of late"))
        return Payment(
            Amendment(
                set={"check.trace_id": trace_id, "check.asked_at": now()},
                owe=[owe("await_verdict", delay=_VERDICT_WITHIN)],
            ),
            prompt=True,  # the verdict may be on its way: it finds its photo by what is noted here
        )

    async def pay_await_verdict(self, photo: Document, _debt: Document) -> Payment:
        """Ask again when the verdict has not come in time."""
        if photo["check"]["verdict"] != "pending":
            return Payment()
        return Payment(Amendment(increment={"check.rounds": 1}, owe=[owe("check")]))

    async def judge(self, trace_id: str, verdict: Verdict, label: str) -> bool:
        """Record WeChat's verdict for the check ``trace_id``; False when no such check is known. May be repeated.

        What has the photo attached learns of it by the debt ``tell_verdict``, which the worker pays.
        """
        return await self._answered(trace_id, self._judged(verdict, label))

    async def ask_again(self, trace_id: str, problem: str) -> bool:
        """WeChat could not check the photo: ask again in a minute. False when no such check is known."""
        later = Amendment(set={"check.problem": problem, "check.failed_trace": trace_id}, increment={"check.rounds": 1})
        later.owe = [owe("check", delay=timedelta(minutes=1))]
        later.settle = ["await_verdict", "check"]
        return await self._answered(trace_id, later)

    async def _answered(self, trace_id: str, amendment: Amendment) -> bool:
        """Record the first answer to the check ``trace_id``: of what comes again, rounds would be counted twice."""
        changed = await self._photos.update_one(
            {"check.trace_id": trace_id, "check.verdict": "pending", "check.failed_trace": {"$ne": trace_id}},
            amendment.pipeline(),
        )
        if changed.matched_count:
            return True
        # A repeat finds its answer recorded. Pending without one means that the check was noted between the two lines:
        # the push came too early and has to come again.
        recorded = [{"check.verdict": {"$ne": "pending"}}, {"check.failed_trace": trace_id}]
        return await self._photos.find_one({"check.trace_id": trace_id, "$or": recorded}, {"_id": 1}) is not None

    @staticmethod
    def _judged(verdict: Verdict, label: str) -> Amendment:
        return Amendment(
            set={"check.verdict": verdict, "check.label": label, "check.judged_at": now()},
            owe=[owe("tell_verdict")],
            settle=["await_verdict"],
        )

    async def clear_unused(self, limit: int = 500) -> int:
        """Delete photos that nothing has claimed in time; how many. Called by the timetable."""
        oldest = now() - timedelta(hours=self._settings.keep_unused_hours)
        cleared = 0
        async for photo in self._photos.find({"attached_to": None, "created_at": {"$lt": oldest}}).limit(limit):
            # The document goes first, on condition that it is still unclaimed; then nothing can attach it any more.
            gone = await self._photos.delete_one({"_id": photo["_id"], "attached_to": None})
            if gone.deleted_count:
                await self._store.delete(photo["_id"], revisions=1 + (photo.get("marks") or {}).get("revision", 0))
                cleared += 1
        return cleared

    async def owned_by(self, owner_id: str) -> list[Document]:
        """Every photo of a person, oldest first, for their own data export."""
        found = self._photos.find({"owner.id": owner_id}).sort("_id", ASCENDING).limit(10_000)
        return [
            {k: p[k] for k in ("_id", "created_at", "sha256", "taken_at", "position", "width", "height")}
            async for p in found
        ]

    async def forget_owner(self, owner_id: str) -> None:
        """Take the person out of their photos, for account deletion: the pictures stay with their cases."""
        await self._photos.update_many(
            {"owner.id": owner_id},
            {"$set": {"owner": {"kind": "nobody", "id": ""}, "openid": None, "position": None, "taken_at": None}},
        )

"""What citizens do with reports: upload photos, submit, follow what becomes of them, supplement, withdraw, rate."""

from __future__ import annotations

from tornado.httputil import HTTPFile

from core.clock import now
from core.errors import Invalid
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.operations import Route, operation
from handlers.report_views import (
    ActionView,
    DueView,
    Eyes,
    TimelineView,
    first_photo,
    location_of,
    location_view,
    may_show_text,
    photo_view,
    photo_views,
    place_view,
    state_name,
)
from miniprogram_api import PREFIX
from miniprogram_api.report_models import (
    ActionDone,
    Categories,
    CategoryView,
    Empty,
    Followed,
    MergedView,
    NewReportBody,
    PhotoTaken,
    Rating,
    RatingView,
    Reopening,
    ReportDetail,
    ReportLine,
    ReportPage,
    ReportsQuery,
    ReportSubmitted,
    SimilarLine,
    SimilarQuery,
    SimilarReports,
    Supplement,
    Urging,
    Withdrawal,
)
from photos.pictures import MAX_BYTES
from photos.service import PhotoService
from places.models import Position
from reports.catalogue.categories import Catalogue
from reports.followers import ReportPeople
from reports.lifecycle.guards import suspended_until, units_of, wanted
from reports.lifecycle.milestones import milestones
from reports.lifecycle.table import NOTE_SHOWN
from reports.lifecycle.timeline import to_citizens
from reports.models import Given, NewReport, Reporter
from reports.queries import ReportQueries, is_late
from reports.service import ReportService
from reports.states import State
from reports.triage.duplicates import Candidate, Duplicates

PAGE_SIZE = 20


class CategoriesHandler(BaseHandler):
    """``/categories``."""

    @operation("What can be reported", audience="citizen", answer=Categories)
    async def get(self) -> Categories:
        """The citizen's dozen categories with their catalogue codes and extra questions."""
        return Categories(
            categories=[
                CategoryView.model_validate(c.model_dump(include=set(CategoryView.model_fields)))
                for c in await self.services[Catalogue].categories()
            ]
        )


class Photos(BaseHandler):
    """``/photos``."""

    @operation(
        "Upload a photo",
        audience="citizen",
        answer=PhotoTaken,
        status=201,
        limits=("write", "photo"),
        form_file="photo",
        max_body=MAX_BYTES + 4096,
    )
    async def post(self, file: HTTPFile) -> PhotoTaken:
        """JPEG, PNG, WebP or HEIC by its bytes, at most 10 MB and 50 megapixels. Position and time are read from it,
        then everything but the pixels is removed; three sizes are kept."""
        taken = await self.services[PhotoService].take(
            file.body, {"kind": "citizen", "id": self.citizen.citizen_id}, openid=self.citizen.openid
        )
        self.services.wake("photos")
        where = taken["position"]
        return PhotoTaken(
            photo_id=taken["_id"],
            width=taken["width"],
            height=taken["height"],
            taken_at=taken["taken_at"],
            location=location_of(*where) if where else None,
            photo=photo_view(self.services[PhotoService], taken["_id"], taken["check"]["verdict"], original=True),
        )


class ReportHandler(BaseHandler):
    """What handlers about reports share."""

    @property
    def reporter(self) -> Reporter:
        """Who acts."""
        return Reporter(self.citizen.citizen_id, self.citizen.openid)

    def line(self, report: Document) -> ReportLine:
        """A report in a list."""
        mine = report["reporter"]["citizen_id"] == self.citizen.citizen_id
        return ReportLine(
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            category=report["category"],
            description=report["description"],
            address=report["address"],
            location=location_view(report),
            submitted_at=report["created_at"],
            mine=mine,
            photo=first_photo(self.services[PhotoService], report, eyes="own" if mine else "public"),
            metres=round(report["metres"], 1) if "metres" in report else None,
        )

    async def act(self, number: str, action: str, given: Given) -> ActionDone:
        """Do one of the reporter's actions."""
        _, entry = await self.services[ReportService].act(number, action, self.reporter, given, once=self.once)
        self.services.wake("reports")
        return ActionDone(
            number=number,
            action=action,
            state=entry["to"],
            state_name=state_name({"state": entry["to"]}),
            at=entry["at"],
            says=to_citizens(entry),
        )


class Reports(ReportHandler):
    """``/reports``."""

    @operation(
        "Report a problem",
        audience="citizen",
        body=NewReportBody,
        answer=ReportSubmitted,
        status=201,
        limits=("write", "report"),
        idempotent=True,
    )
    async def post(self, body: NewReportBody) -> ReportSubmitted:
        """Photos first (``POST /photos``), then this with their ids. The place must lie in the district."""
        stored = body.location.stored()
        longitude, latitude = stored.point.coordinates
        report = await self.services[ReportService].submit(
            NewReport(
                description=body.description,
                category=body.category,
                photo_ids=tuple(body.photo_ids),
                longitude=longitude,
                latitude=latitude,
                given={"coordinates": list(stored.coordinates), "crs": stored.crs.value},
                address=body.address,
                contact_phone=body.contact_phone,
                anonymous=body.anonymous,
                answers=body.answers,
            ),
            self.reporter,
            once=self.once,
        )
        self.services.wake("reports")
        return ReportSubmitted(
            number=report["_id"],
            state=State.SUBMITTED,
            state_name=state_name({"state": State.SUBMITTED}),
            submitted_at=report["created_at"],
        )

    @operation("List reports", audience="citizen", query=ReportsQuery, answer=ReportPage)
    async def get(self, query: ReportsQuery) -> ReportPage:
        """The citizen's own, followed ones, those near a place, or the newest that everybody may see."""
        if sum((query.mine, query.followed, query.near is not None)) > 1:
            raise Invalid("mine、followed、near 只能选一个。", code="ONE_LIST_AT_A_TIME")
        queries, states, me = self.services[ReportQueries], tuple(query.status), self.citizen.citizen_id
        following: str | None = None
        if query.near is not None:
            longitude, latitude = query.near.stored().point.coordinates
            found = await queries.near(longitude, latitude, metres=query.metres, states=states)
        elif query.mine:
            found, following = await queries.mine(me, states, query.page, PAGE_SIZE)
        elif query.followed:
            found, following = await queries.followed(me, query.page, PAGE_SIZE)
        else:
            found, following = await queries.public(states, query.page, PAGE_SIZE)
        return ReportPage(reports=[self.line(r) for r in found], next_page=following)


class Similar(ReportHandler):
    """``/reports/similar``."""

    @operation("Open reports that may be the same", audience="citizen", query=SimilarQuery, answer=SimilarReports)
    async def get(self, query: SimilarQuery) -> SimilarReports:
        """Nearby and of late, the likest first: the citizen may follow one of them instead of reporting it again."""
        position = Position(longitude=query.longitude, latitude=query.latitude, crs=query.crs)
        longitude, latitude = position.stored().point.coordinates
        found = await self.services[Duplicates].for_citizen(
            self.citizen.citizen_id,
            longitude=longitude,
            latitude=latitude,
            category=query.category,
            description=query.description,
            photo_ids=query.photo_ids,
        )
        return SimilarReports(reports=[self._line(candidate) for candidate in found])

    def _line(self, candidate: Candidate) -> SimilarLine:
        alike = candidate.likeness
        line = self.line({**candidate.report, "metres": alike.metres})
        return SimilarLine(**dict(line), score=round(alike.score, 3), reasons=list(alike.reasons))


class Report(ReportHandler):
    """``/reports/{number}``."""

    @operation("A report", audience="citizen", answer=ReportDetail)
    async def get(self, number: str) -> ReportDetail:
        """With its timeline, responsible unit, time limit, and what the citizen may do now."""
        report = await self.services[ReportQueries].for_citizen(number, self.citizen.citizen_id)
        mine = report["reporter"]["citizen_id"] == self.citizen.citizen_id
        photos = self.services[PhotoService]
        first = report["timeline"][0]
        rated = next((e for e in reversed(report["timeline"]) if e["action"] == "rate"), first)
        timeline = [self._step(report, e, mine) for e in report["timeline"] if e["shown"]]
        rating = report["rating"]
        end = await self.services[ReportQueries].end_of(report)
        return ReportDetail(
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            version=report["version"],
            category=report["category"],
            category_name=report["category_name"],
            description=report["description"],
            address=report["address"],
            answers=report["answers"] if mine else {},
            location=location_view(report),
            place=place_view(report),
            submitted_at=report["created_at"],
            photos=photo_views(photos, report, report["photos"], eyes="own" if mine else "public"),
            timeline=timeline,
            unit=report["unit_name"],
            co_units=[u["name"] for u in units_of(report) if not u["lead"]],
            suspended_until=suspended_until(report),
            urges=milestones(report)["urges"],
            due=DueView(due_at=report["due_at"], late=is_late(report, now())),
            rating=RatingView(
                resolved=rating["resolved"],
                score=rating["score"],
                comment=rating["comment"] if mine or may_show_text(report, rated) else None,
            )
            if rating
            else None,
            mine=mine,
            following=self.citizen.citizen_id in report["followers"],
            followers=len(report["followers"]),
            anonymous=report["reporter"]["anonymous"],
            contact_phone_given=mine and report["contact_phone"] is not None,
            wanted=wanted(report) if mine else None,
            checked=report["public"],
            actions=[
                ActionView(action=t.action, label=t.label, needs=list(t.needs), takes=[*t.takes, *t.some_of])
                for t in self.services[ReportService].open_to(report, self.reporter)
            ],
            merged=MergedView(number=end["_id"], state=end["state"], state_name=state_name(end))
            if end is not report
            else None,
        )

    def _step(self, report: Document, entry: Document, mine: bool) -> TimelineView:
        kind = entry["by"]["kind"]
        own = entry["by"]["id"] == self.citizen.citizen_id
        readable = own or may_show_text(report, entry)
        # A citizen sees what others have photographed as everybody does, staff's evidence for their own report too.
        eyes: Eyes = "own" if own else "concerned" if mine and kind != "follower" else "public"
        own_words = kind in ("reporter", "follower")
        by = {"reporter": "上报人", "follower": "关注人", "partner": "合作方", "system": "系统"}.get(kind)
        return TimelineView(
            at=entry["at"],
            action=entry["action"],
            says=to_citizens(entry, reporter=mine),
            by=by or ("处置部门" if entry["by"].get("unit") else "指挥中心"),
            note=entry["note"] if (readable if own_words else entry["action"] in NOTE_SHOWN) else None,
            photos=photo_views(self.services[PhotoService], report, entry["photos"], eyes=eyes),
        )


class Follow(ReportHandler):
    """``/reports/{number}/follow``."""

    @operation("Follow a report", audience="citizen", body=Empty, answer=Followed, limits=("write",), errors=(409,))
    async def post(self, number: str, body: Empty) -> Followed:
        """Instead of reporting the same problem again. Following twice changes nothing."""
        report = await self.services[ReportPeople].follow(number, self.citizen.citizen_id)
        return Followed(number=number, followers=len(report["followers"]))

    @operation("Stop following a report", audience="citizen", limits=("write",))
    async def delete(self, number: str) -> None:
        """Nothing more of it is told to this citizen."""
        await self.services[ReportPeople].unfollow(number, self.citizen.citizen_id)


class Supplements(ReportHandler):
    """``/reports/{number}/supplements``."""

    @operation(
        "Add to my report",
        audience="citizen",
        body=Supplement,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Supplement) -> ActionDone:
        """Words or photos, as long as the case is open."""
        return await self.act(number, "supplement", Given(note=body.note, photos=tuple(body.photo_ids)))


class WithdrawalHandler(ReportHandler):
    """``/reports/{number}/withdrawal``."""

    @operation(
        "Withdraw my report",
        audience="citizen",
        body=Withdrawal,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Withdrawal) -> ActionDone:
        """While it is not dispatched yet."""
        return await self.act(number, "withdraw", Given(reason=body.reason))


class RatingHandler(ReportHandler):
    """``/reports/{number}/rating``."""

    @operation(
        "Rate the result",
        audience="citizen",
        body=Rating,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Rating) -> ActionDone:
        """Once the case is closed."""
        given = Given(resolved=body.resolved, score=body.score, note=body.comment, photos=tuple(body.photo_ids))
        return await self.act(number, "rate", given)


class Urge(ReportHandler):
    """``/reports/{number}/urge``."""

    @operation(
        "Urge",
        audience="citizen",
        body=Urging,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Urging) -> ActionDone:
        """My own report, or one that I follow, while something is still to be done: once a day for each citizen."""
        return await self.act(number, "urge", Given(note=body.note))


class ReopeningHandler(ReportHandler):
    """``/reports/{number}/reopening``."""

    @operation(
        "Say that it is not solved",
        audience="citizen",
        body=Reopening,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Reopening) -> ActionDone:
        """My own report, or one that I follow, within 15 days of closing: it is verified again."""
        given = Given(resolved=body.resolved, reason=body.reason, photos=tuple(body.photo_ids))
        return await self.act(number, "reopen", given)


ROUTES = (
    Route(f"{PREFIX}/categories", CategoriesHandler, "Citizen: reports"),
    Route(f"{PREFIX}/photos", Photos, "Citizen: reports"),
    Route(f"{PREFIX}/reports", Reports, "Citizen: reports"),
    Route(f"{PREFIX}/reports/similar", Similar, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}", Report, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/follow", Follow, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/supplements", Supplements, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/withdrawal", WithdrawalHandler, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/rating", RatingHandler, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/urge", Urge, "Citizen: reports"),
    Route(f"{PREFIX}/reports/{{number}}/reopening", ReopeningHandler, "Citizen: reports"),
)

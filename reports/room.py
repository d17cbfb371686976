"""Cases (案卷), from intake to indicators: what of them the rest of the house must know."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from accounts.staff import StaffService
from accounts.staff_locations import StaffLocations
from core.config import CONFIG_FILE
from core.database import merge_indexes
from core.encryption import Signer, Vault
from core.idempotency import Idempotency
from core.marks import ExportMarks
from core.room import (
    Debts,
    PathParameter,
    PersonalData,
    Room,
    Task,
    Turn,
    Use,
    Wakes,
    Watched,
    administered,
    pay_audit,
)
from core.serials import Serials
from core.services import Services
from core.wechat import WeChat
from inference.labels import LabelService
from inference.photo_labelling import PhotoLabelling
from inference.service import InferenceService
from notices.inbox import StaffInbox
from notices.service import NoticeService
from photos.service import PhotoService
from places.service import PlaceService
from reports import batches, case_indexes, feed
from reports.area_overview import AreaOverview
from reports.batches import ReportBatches
from reports.catalogue import categories, library
from reports.catalogue.administration import CategoryAdministration
from reports.catalogue.categories import Catalogue
from reports.catalogue.library import StandardLibrary
from reports.dispatch.rule_administration import RoutingAdministration
from reports.exports import KIND as REPORT_EXPORT
from reports.exports import ReportExports
from reports.followers import ReportPeople
from reports.intake import orders
from reports.intake.order_sheets import KIND as HOTLINE_IMPORT
from reports.intake.order_sheets import HotlineSheets
from reports.intake.orders import IntakeService
from reports.intake.patrol_reports import PatrolReports
from reports.lifecycle.table import ACTIONS, TRANSITIONS
from reports.lifecycle.training_labels import TrainingLabels
from reports.limits.recalculation import LimitRecalculation
from reports.limits.warnings import TimeLimits
from reports.new_case import NUMBER_PATTERN
from reports.photos_of_cases import HOLDER
from reports.queries import ReportQueries
from reports.relations.merge import Merging
from reports.relations.split import Splitting
from reports.service import ReportService
from reports.settings import escalation_of, policy
from reports.site_checks import tasks
from reports.site_checks.tasks import SiteChecks
from reports.site_checks.worker import SiteCheckWorker
from reports.states import OPEN
from reports.statistics import scheme as schemes
from reports.statistics.monthly_sheet import MonthlySheets
from reports.statistics.reading import Statistics
from reports.statistics.recount import Recount
from reports.statistics.satisfaction_calls import SatisfactionCalls
from reports.statistics.scheme import IndicatorScheme
from reports.topics.keeper import TopicKeeper
from reports.topics.ranking import Topics
from reports.triage.duplicates import Duplicates
from reports.triage.suggestions import Suggestions
from reports.worker import ReportWorker
from worktime.calendar import CalendarService

log = structlog.get_logger(__name__)


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    database, settings = services.database, services.settings
    days = services[CalendarService]
    photos, places, staff = services[PhotoService], services[PlaceService], services[StaffService]
    idempotency, vault, inference = services[Idempotency], services[Vault], services[InferenceService]
    types, standards, queries = Catalogue(database), StandardLibrary(database), ReportQueries(database)
    how, escalation = policy(settings), escalation_of(settings)
    reports = ReportService(
        database,
        catalogue=types,
        places=places,
        photos=photos,
        staff=staff,
        vault=vault,
        idempotency=idempotency,
        serials=Serials(database),
        calendar=days,
        escalation=escalation,
        policy=how,
        division=settings.reports.division,
    )
    people = ReportPeople(database, queries=queries, vault=vault, idempotency=idempotency)
    hotline = IntakeService(database, reports=reports, places=places, catalogue=types)
    scheme, statistics = IndicatorScheme(database), Statistics(database)
    work = CONFIG_FILE.parent / settings.folders.data / "work"
    exports = ReportExports(
        queries=queries,
        people=people,
        jobs=services.jobs,
        audit=services.audit,
        marks=ExportMarks(services[Signer]),
        work=work,
        max_rows=settings.files.max_rows,
    )
    sheets = HotlineSheets(intake=hotline, places=places, jobs=services.jobs, audit=services.audit, work=work)
    services.jobs.register(REPORT_EXPORT, exports.run)
    services.jobs.register(HOTLINE_IMPORT, sheets.run)
    services.add(
        types,
        standards,
        queries,
        reports,
        people,
        hotline,
        scheme,
        statistics,
        exports,
        sheets,
        CategoryAdministration(database, catalogue=types, library=standards),
        AreaOverview(database, places=places, catalogue=types),
        RoutingAdministration(database, catalogue=types, places=places),
        Suggestions(
            reports=reports,
            queries=queries,
            catalogue=types,
            staff=staff,
            seeing=services[PhotoLabelling],
            inference=inference,
            settings=settings.inference,
        ),
        TrainingLabels(labels=services[LabelService], photos=photos),
        TimeLimits(
            database,
            calendar=days,
            escalation=escalation,
            inbox=services[StaffInbox],
            timekeeper=services.timekeeper,
        ),
        Duplicates(
            database,
            queries=queries,
            photos=photos,
            metres=settings.reports.similar_metres,
            days=settings.reports.similar_days,
        ),
        Topics(database, queries),
        SatisfactionCalls(database, queries=queries),
        MonthlySheets(statistics=statistics, scheme=scheme, staff=staff, places=places),
        ReportBatches(database, reports, idempotency),
        PatrolReports(reports=reports, queries=queries, photos=photos, places=places, catalogue=types),
        SiteChecks(database, photos=photos, settings=settings.side_tasks),
        SiteCheckWorker(database, reports=reports, positions=services[StaffLocations], settings=settings.side_tasks),
        Splitting(database, reports),
        Merging(database, reports),
        LimitRecalculation(database, calendar=days, policy=how),
        ReportWorker(
            database,
            reports=reports,
            catalogue=types,
            photos=photos,
            notices=services[NoticeService],
            wechat=services[WeChat],
            audit=services.audit,
        ),
    )


async def _uses_of_unit(services: Services, unit: str) -> list[Use]:
    """The open cases that it leads or helps with, and the rules that dispatch to it."""
    reports, rules = services.database["reports"], services.database["routing_rules"]
    # Each by its index, named: among a million cases others look as good and are not. The second is partial: asked in
    # other words than its own, it would have cases go unseen.
    leads = {"unit_id": unit, "state": {"$in": OPEN}}
    helps = {"units.unit_id": unit, "units.1.unit_id": {"$exists": True}, "unit_id": {"$ne": unit}}
    cases = await reports.count_documents(leads, limit=1000, hint="unit_state")
    cases += await reports.count_documents({**helps, "state": {"$in": OPEN}}, limit=1000, hint="units")
    names = [rule["name"] async for rule in rules.find({"unit": unit, "deleted_at": None}, {"name": 1})]
    return [
        Use("open_cases", cases, f"{cases} 件未结案件", cases),
        Use("rules", len(names), f"{len(names)} 条派遣规则", names),
    ]


async def mark_late_reports(services: Services) -> int:
    """Mark the cases whose time limit has passed, and take back what a clock that was ahead has marked; how many."""
    if taken_back := await services[TimeLimits].take_back():
        log.warning("reports.not_late", count=taken_back)
    return await services[ReportService].mark_late()


async def remind_dormant_reports(services: Services) -> None:
    """Remind staff of the cases that nobody has touched for long."""
    if reminded := await services[ReportService].remind_dormant():
        log.info("reports.reminded", count=reminded)


async def _count(services: Services, _wakes: Wakes) -> None:
    await Recount(services.database).follow(services.settings.worker.gather_seconds)


async def _keep_topics(services: Services, _wakes: Wakes) -> None:
    settings = services.settings
    keeper = TopicKeeper(services.database, lease_seconds=settings.feed.lease_seconds)
    await keeper.run(settings.worker.gather_seconds)


async def _warn(services: Services, _wakes: Wakes) -> None:
    await services[TimeLimits].run(services.settings.worker.warn_seconds)


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    people = services[ReportPeople]
    return {"reports": await people.export(citizen_id), "follows": await people.followed(citizen_id)}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[ReportPeople].forget(citizen_id)


ROOM = Room(
    name="reports",
    indexes=merge_indexes(
        part.INDEXES for part in (case_indexes, batches, orders, schemes, categories, library, tasks)
    ),
    sharded=frozenset({"reports", "batches", "external_orders", "side_tasks"}),
    open=_open,
    debts=(
        *administered("categories", "routing_rules", "catalogue_types", "filing_standards", "indicator_schemes"),
        Debts(
            collection="calendar_days",
            pay={"recount": lambda services: services[LimitRecalculation].pay_recount},
        ),
        Debts(
            collection="reports",
            pay={
                "route": lambda services: services[ReportWorker].pay_route,
                "attach": lambda services: services[ReportWorker].pay_attach,
                "audit": lambda services: services[ReportWorker].pay_audit,
                "resume": lambda services: services[ReportWorker].pay_resume,
                "warn": lambda services: services[TimeLimits].pay_warn,
                "absorb": lambda services: services[Merging].pay_absorb,
                "find_duplicates": lambda services: services[Duplicates].pay_find_duplicates,
                "offer_check": lambda services: services[SiteCheckWorker].pay_offer_check,
                "cancel_checks": lambda services: services[SiteCheckWorker].pay_cancel_checks,
                "move_checks": lambda services: services[SiteCheckWorker].pay_move_checks,
                "create_children": lambda services: services[Splitting].pay_create_children,
                "tell_parent": lambda services: services[Splitting].pay_tell_parent,
                "suggest": lambda services: services[Suggestions].pay_suggest,
                "learn": lambda services: services[TrainingLabels].pay_learn,
            },
            can_wait=frozenset({"learn", "find_duplicates"}),
        ),
        Debts(
            collection="reports",
            pay={
                "check_text": lambda services: services[ReportWorker].pay_check_text,
                "notify": lambda services: services[ReportWorker].pay_notify,
            },
            outside=True,
        ),
        Debts(
            collection="side_tasks",
            pay={
                "offer": lambda services: services[SiteCheckWorker].pay_offer,
                "lapse": lambda services: services[SiteCheckWorker].pay_lapse,
                "expire": lambda services: services[SiteCheckWorker].pay_expire,
                "tell_case": lambda services: services[SiteCheckWorker].pay_tell_case,
                "audit": pay_audit,
            },
        ),
    ),
    changes=(
        Watched(
            feed.SOURCE,
            frozenset({*ACTIONS, "submit", "late", "update", "removed"}),
            shown="admin.reports.live_cases",
        ),
    ),
    turns=(Turn("* * * * *", mark_late_reports), Turn("*/10 * * * *", remind_dormant_reports)),
    tasks=(Task(_count), Task(_keep_topics), Task(_warn, by_clock=True)),
    http=(
        "miniprogram_api.reports",
        "admin.reports.routes",
        "handlers.open311",
        "handlers.intake",
    ),
    path_parameters={
        "number": PathParameter(NUMBER_PATTERN, "The case number: division (6), date (8), serial (6)."),
        "action": PathParameter(r"[a-z_]{1,40}", "An action of the table of transitions, e.g. dispatch."),
        "indicator": PathParameter(r"[a-z0-9_]{2,40}", "The key of an indicator, e.g. handling_rate."),
        "category_key": PathParameter(r"[a-z0-9_]{2,40}", "The key of a category, e.g. exposed_garbage."),
        "topic_id": PathParameter(NUMBER_PATTERN, "The id of a topic: the number of the report that founded it."),
        "task_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a check on site."),
        "rule_key": PathParameter(r"[a-z0-9_]{2,40}", "The key of a routing rule."),
        "format": PathParameter(r"xml|json", "The form of the answer: text/xml or application/json."),
        "service_code": PathParameter(r"[^/]{1,100}", "A service_code of the service list."),
        "service_request_id": PathParameter(r"[^/]{1,100}", "What POST requests returned: the case number."),
        "token": PathParameter(r"[^/]{1,100}", "The same: no other tokens are given."),
        "external_number": PathParameter(
            r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", "The number that the sender gave the order."
        ),
    },
    photo_holders={"report": HOLDER},
    uses={"unit": _uses_of_unit},
    permissions=frozenset(row.permission for row in TRANSITIONS if "staff" in row.actors and row.permission),
    personal=PersonalData(
        held={
            "reports": (
                "reporter.citizen_id",
                "followers",
                "notices.citizen_id",
                "acted.citizen_id",
                "timeline.by.id",
            )
        },
        export=_export,
        forget=_forget,
    ),
)

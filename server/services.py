"""Builds the services of one process, and the indexes that they need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import time, timedelta

from accounts import api_keys as api_keys_room
from accounts import citizens as citizens_room
from accounts import delegation as delegation_room
from accounts import failures as failures_room
from accounts import positions as positions_room
from accounts import sessions as sessions_room
from accounts import staff as staff_room
from accounts.administration import StaffAdministration
from accounts.administrators import Administrators
from accounts.api_keys import ApiKeyService
from accounts.citizens import CitizenService
from accounts.delegation import DelegationService
from accounts.failures import Failures
from accounts.passwords import Passwords
from accounts.positions import StaffPositions
from accounts.role_administration import RoleAdministration
from accounts.second_factor import SecondFactor
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.staff import StaffService
from core import audit as audit_room
from core import changes as changes_room
from core import idempotency as idempotency_room
from core import jobs as jobs_room
from core import metrics
from core import photos as photos_room
from core.audit import Audit, audit_database
from core.cache import Cache
from core.config import CONFIG_FILE, ConfigurationError, Settings, s3_options, store_url
from core.database import Database, connect, ensure_indexes, merge_indexes
from core.encryption import Signer, Vault
from core.files import FileStore
from core.idempotency import Idempotency
from core.jobs import JobService
from core.marks import ExportMarks
from core.photo_marks import PhotoMarks
from core.photo_store import PhotoStore
from core.photos import PhotoService
from core.serials import Serials
from core.services import Services
from core.timekeeper import Timekeeper
from core.wechat import PushReceiver, WeChat
from inference import condition as condition_room
from inference import drift as drift_room
from inference import labels as labels_room
from inference import promotions as promotions_room
from inference.condition import InferenceCondition
from inference.drift import Drift
from inference.following import following
from inference.hiding import PictureHider
from inference.labels import LabelService
from inference.promotions import Promotions
from inference.seeing import PhotoSeeing
from inference.service import InferenceService
from notices import inbox as inbox_room
from notices import service as notices_room
from notices.inbox import StaffInbox
from notices.service import NoticeService
from places import service as places_room
from places.service import PlaceService
from reports import batches as batches_room
from reports import calendar as calendar_room
from reports import case_indexes
from reports import catalogue as catalogue_room
from reports import indicator_scheme as indicator_scheme_room
from reports import intake as intake_room
from reports import side_tasks as side_tasks_room
from reports import standard_library as library_room
from reports.area_overview import AreaOverview
from reports.batches import ReportBatches
from reports.calendar import FIRST_YEAR, CalendarService
from reports.call_backs import CallBacks
from reports.catalogue import Catalogue
from reports.category_administration import CategoryAdministration
from reports.checks import RequiredChecks
from reports.deadlines import Limit, WorkCalendar
from reports.duplicates import Duplicates
from reports.exports import KIND as REPORT_EXPORT
from reports.exports import ReportExports
from reports.facts import Policy
from reports.findings import ReportFindings
from reports.indicator_scheme import IndicatorScheme
from reports.intake import IntakeService
from reports.intake_sheets import KIND as HOTLINE_IMPORT
from reports.intake_sheets import HotlineSheets
from reports.jobs import ReportJobs
from reports.learning import ReportLessons
from reports.monthly_sheet import MonthlySheets
from reports.people import ReportPeople
from reports.queries import ReportQueries
from reports.routing_administration import RoutingAdministration
from reports.running_limit import Escalation, WarningStep
from reports.service import ReportService
from reports.side_tasks import SideTasks
from reports.snapshots import models as snapshots_room
from reports.snapshots.services import snapshot_services
from reports.standard_library import StandardLibrary
from reports.statistics import Statistics
from reports.suggestions import Suggestions
from reports.time_limits import TimeLimits
from reports.topics import Topics
from reports.unit_administration import UnitAdministration
from server.backup.restoring import refuse_half_restored
from server.permissions import known_permissions
from webhooks import service as webhooks_room
from webhooks.deliveries import Delivering
from webhooks.sending import Sender
from webhooks.service import WebhookService

_ISSUER = "共治 Gongzhi"  # what an authenticator app shows beside the user name

INDEXES = merge_indexes(
    [
        idempotency_room.INDEXES,
        jobs_room.INDEXES,
        changes_room.INDEXES,
        webhooks_room.INDEXES,
        photos_room.INDEXES,
        condition_room.INDEXES,
        labels_room.INDEXES,
        drift_room.INDEXES,
        promotions_room.INDEXES,
        sessions_room.INDEXES,
        staff_room.INDEXES,
        failures_room.INDEXES,
        delegation_room.INDEXES,
        api_keys_room.INDEXES,
        citizens_room.INDEXES,
        notices_room.INDEXES,
        inbox_room.INDEXES,
        places_room.INDEXES,
        calendar_room.INDEXES,
        case_indexes.INDEXES,
        batches_room.INDEXES,
        intake_room.INDEXES,
        indicator_scheme_room.INDEXES,
        catalogue_room.INDEXES,
        library_room.INDEXES,
        positions_room.INDEXES,
        side_tasks_room.INDEXES,
        snapshots_room.INDEXES,
    ]
)


def working_hours(settings: Settings) -> WorkCalendar:
    """The district's working hours in a week without holidays. Raises :class:`ConfigurationError`."""
    reports = settings.reports
    periods = tuple((time.fromisoformat(a), time.fromisoformat(b)) for a, b in reports.working_periods)
    weekdays = {d - 1: periods if d in reports.working_weekdays else () for d in range(1, 8)}
    try:
        return WorkCalendar(periods=periods, weekday_periods=weekdays, first_year=FIRST_YEAR, last_year=FIRST_YEAR)
    except ValueError as error:
        raise ConfigurationError(f"reports: {error}") from error


def escalation_of(settings: Settings) -> Escalation:
    """Who is told when a time limit runs out. Raises :class:`ConfigurationError`."""
    reports = settings.reports
    steps = tuple(WarningStep(step.percent, tuple(step.roles)) for step in reports.warnings)
    try:
        return Escalation(steps, without_unit=tuple(reports.warned_without_unit))
    except ValueError as error:
        raise ConfigurationError(f"reports.warnings: {error}") from error


def policy(settings: Settings) -> Policy:
    """How the district works, from the settings."""
    given = settings.reports.model_dump(include={field.name for field in fields(Policy)})
    limits = {name: Limit(**given[name]) for name in ("dispatch_limit", "closing_limit")}
    checked = settings.side_tasks
    checks = RequiredChecks(frozenset(checked.before_filing), frozenset(checked.before_closing))
    return Policy(**{**given, **limits}, checks=checks)


def public_url(settings: Settings) -> str:
    """The address that phones and WeChat reach us under; in development, the one that we listen on."""
    return settings.server.public_url or f"http://{settings.server.host}:{settings.server.port}"


def _observe_wechat(path: str, errcode: int, seconds: float) -> None:
    metrics.WECHAT_CALLS.labels(path, str(errcode)).inc()
    metrics.WECHAT_SECONDS.labels(path).observe(seconds)


async def _prepare(database: Database, log: Database) -> None:
    await refuse_half_restored(database)
    await ensure_indexes(database, INDEXES)
    await ensure_indexes(log, audit_room.INDEXES)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services of this process; closed on leaving."""
    if settings.mongodb.url is None or settings.redis.url is None:
        raise ConfigurationError("MONGODB_URL and REDIS_URL must be set; `make run` sets them for its own servers")
    database = connect(settings.mongodb.url, settings.mongodb.database, pool_size=settings.mongodb.pool_size)
    cache = Cache.connect(settings.redis.url)
    wechat = WeChat(
        settings.wechat.base_url,
        settings.wechat.appid,
        settings.wechat.appsecret.get_secret_value(),
        cache.redis,
        observe=_observe_wechat,
    )
    # Making it opens nothing: weights are read by the process that first asks for a judgement.
    inference = InferenceService(CONFIG_FILE.parent / settings.inference.folder, settings.inference.threads)
    sender = Sender(settings.webhooks, strict=settings.environment == "production")
    try:
        await _prepare(database, audit_database(settings, database))
        audit = Audit.of(settings, database)
        vault = Vault(settings.keys.data.get_secret_value(), settings.keys.index.get_secret_value())
        passwords = Passwords(settings.passwords)
        sessions = SessionService(database, settings.sessions, passwords)
        staff = StaffService(database, passwords)
        administrators = Administrators(database, settings.reports.division)
        places = PlaceService(database)
        photos = PhotoService(
            database,
            _photo_store(settings),
            wechat,
            Signer(settings.keys.signing.get_secret_value()),
            settings.photos,
            public_url(settings),
            also_owed=("see", "blur") if settings.inference.enabled else ("blur",),
        )
        notices = NoticeService(database, wechat, settings.wechat.templates, settings.wechat.miniprogram_state)
        catalogue = Catalogue(database)
        calendar = CalendarService(database, working_hours(settings))
        await calendar.current()  # from here on the latest is never older than this process
        library = StandardLibrary(database)
        escalation, timekeeper = escalation_of(settings), Timekeeper(database)
        inbox = StaffInbox(database, keep=timedelta(days=settings.notices.keep_days))
        idempotency = Idempotency(database)
        reports = ReportService(
            database,
            catalogue=catalogue,
            places=places,
            photos=photos,
            staff=staff,
            vault=vault,
            idempotency=idempotency,
            serials=Serials(database),
            calendar=calendar,
            escalation=escalation,
            policy=policy(settings),
            division=settings.reports.division,
        )
        queries = ReportQueries(database)
        people = ReportPeople(database, queries=queries, vault=vault, idempotency=idempotency)
        long_jobs = JobService(
            database,
            FileStore.from_url(store_url(settings.files.store), **s3_options(settings)),
            idempotency,
            lease=timedelta(seconds=settings.worker.lease_seconds),
            keep=timedelta(days=settings.files.keep_days),
            longest=timedelta(minutes=settings.worker.job_minutes),
        )
        work = CONFIG_FILE.parent / settings.folders.data / "work"
        exports = ReportExports(
            queries=queries,
            people=people,
            jobs=long_jobs,
            audit=audit,
            marks=ExportMarks(Signer(settings.keys.signing.get_secret_value())),
            work=work,
            max_rows=settings.files.max_rows,
        )
        long_jobs.register(REPORT_EXPORT, exports.run)
        scheme = IndicatorScheme(database)
        statistics, api_keys = Statistics(database), ApiKeyService(database)
        intake = IntakeService(database, reports=reports, places=places, catalogue=catalogue)
        sheets = HotlineSheets(intake=intake, places=places, jobs=long_jobs, audit=audit, work=work)
        long_jobs.register(HOTLINE_IMPORT, sheets.run)
        services = Services(
            settings=settings,
            public_url=public_url(settings),
            database=database,
            cache=cache,
            audit=audit,
            timekeeper=timekeeper,
            jobs=long_jobs,
        )
        services.add(
            sessions,
            CitizenService(database, sessions, wechat, vault),
            SignInService(
                database,
                sessions=sessions,
                audit=audit,
                passwords=passwords,
                failures=Failures(database, settings.sessions),
                second_factor=SecondFactor(database["staff"], vault, _ISSUER),
            ),
            DelegationService(database, sessions, demands=settings.sessions.second_factor == "by_role"),
            staff,
            StaffAdministration(
                database,
                staff=staff,
                passwords=passwords,
                administrators=administrators,
                known_areas=places.known,
            ),
            RoleAdministration(
                database,
                administrators=administrators,
                known=known_permissions(),
            ),
            UnitAdministration(database),
            api_keys,
            places,
            photos,
            inference,
            InferenceCondition(database, inference, every=timedelta(seconds=settings.inference.check_seconds)),
            PhotoSeeing(photos, inference),
            Suggestions(
                reports=reports,
                queries=queries,
                catalogue=catalogue,
                staff=staff,
                seeing=PhotoSeeing(photos, inference),
                inference=inference,
                settings=settings.inference,
            ),
            PhotoMarks(database),
            PictureHider(photos, CONFIG_FILE.parent / settings.photos.detectors),
            LabelService(database),
            Promotions(database),
            Drift(database),
            ReportLessons(labels=LabelService(database), photos=photos),
            notices,
            inbox,
            catalogue,
            calendar,
            CategoryAdministration(database, catalogue=catalogue, library=library),
            library,
            AreaOverview(database, places=places, catalogue=catalogue),
            RoutingAdministration(database, catalogue=catalogue, places=places),
            TimeLimits(database, calendar=calendar, escalation=escalation, inbox=inbox, timekeeper=timekeeper),
            reports,
            queries,
            Duplicates(
                database,
                queries=queries,
                photos=photos,
                metres=settings.reports.similar_metres,
                days=settings.reports.similar_days,
            ),
            Topics(database, queries),
            people,
            CallBacks(database, queries=queries),
            StaffPositions(database, keep=timedelta(minutes=settings.side_tasks.position_minutes)),
            SideTasks(database, photos=photos, settings=settings.side_tasks),
            scheme,
            statistics,
            MonthlySheets(statistics=statistics, scheme=scheme, staff=staff, places=places),
            WebhookService(database, vault, sender.rules),
            Delivering(database, vault, sender, settings.webhooks),
            PushReceiver(
                settings.wechat.push_token.get_secret_value(),
                settings.wechat.push_aes_key.get_secret_value(),
                settings.wechat.appid,
            ),
            exports,
            ReportBatches(database, reports, idempotency),
            intake,
            sheets,
            ReportFindings(reports=reports, queries=queries, photos=photos, places=places, catalogue=catalogue),
            snapshot_services(
                database,
                settings.snapshots,
                labels=LabelService(database),
                keys=api_keys,
                cache=cache,
                inference=inference,
                photos=photos,
                places=places,
                reports=reports,
                queries=queries,
                catalogue=catalogue,
                signer=Signer(settings.keys.signing.get_secret_value()),
                public_url=public_url(settings),
                files=FileStore.from_url(
                    store_url(settings.snapshots.store), content_type="image/jpeg", **s3_options(settings)
                ),
            ),
        )
        services.add(
            ReportJobs(
                database,
                reports=reports,
                catalogue=catalogue,
                photos=photos,
                notices=notices,
                wechat=wechat,
                audit=audit,
            )
        )
        # From here on the process has the database's time and the model in force, and follows both.
        async with timekeeper.kept(), following(settings, database, inference):
            yield services
    finally:
        sender.close()
        inference.close()
        await wechat.close()
        await cache.close()
        database.client.close()


def _photo_store(settings: Settings) -> PhotoStore:
    return PhotoStore.from_url(store_url(settings.photos.store), **s3_options(settings))

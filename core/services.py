"""Everything that handlers call, built once a process by ``server``."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.administration import StaffAdministration
from accounts.api_keys import ApiKeyService
from accounts.citizens import CitizenService
from accounts.delegation import DelegationService
from accounts.positions import StaffPositions
from accounts.role_administration import RoleAdministration
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.staff import StaffService
from core.audit import Audit
from core.cache import Cache
from core.config import Settings
from core.database import Database
from core.debts import WAKE_CHANNEL
from core.jobs import JobService
from core.photo_marks import PhotoMarks
from core.photos import PhotoService
from core.timekeeper import Timekeeper
from core.wechat import PushReceiver
from inference.condition import InferenceCondition
from inference.drift import Drift
from inference.hiding import PictureHider
from inference.labels import LabelService
from inference.promotions import Promotions
from inference.seeing import PhotoSeeing
from inference.service import InferenceService
from notices.inbox import StaffInbox
from notices.service import NoticeService
from places.service import PlaceService
from reports.area_overview import AreaOverview
from reports.batches import ReportBatches
from reports.calendar import CalendarService
from reports.call_backs import CallBacks
from reports.catalogue import Catalogue
from reports.category_administration import CategoryAdministration
from reports.duplicates import Duplicates
from reports.exports import ReportExports
from reports.findings import ReportFindings
from reports.indicator_scheme import IndicatorScheme
from reports.intake import IntakeService
from reports.intake_sheets import HotlineSheets
from reports.learning import ReportLessons
from reports.monthly_sheet import MonthlySheets
from reports.people import ReportPeople
from reports.queries import ReportQueries
from reports.routing_administration import RoutingAdministration
from reports.service import ReportService
from reports.side_tasks import SideTasks
from reports.snapshots.services import SnapshotServices
from reports.standard_library import StandardLibrary
from reports.statistics import Statistics
from reports.suggestions import Suggestions
from reports.time_limits import TimeLimits
from reports.topics import Topics
from reports.unit_administration import UnitAdministration
from webhooks.deliveries import Delivering
from webhooks.service import WebhookService


@dataclass(frozen=True)
class Services:
    """The services of one process."""

    settings: Settings
    public_url: str
    database: Database
    cache: Cache
    audit: Audit
    sessions: SessionService
    citizens: CitizenService
    sign_in: SignInService
    delegations: DelegationService
    staff: StaffService
    administration: StaffAdministration
    roles: RoleAdministration
    units: UnitAdministration
    api_keys: ApiKeyService
    places: PlaceService
    photos: PhotoService
    photo_marks: PhotoMarks
    inference: InferenceService
    condition: InferenceCondition
    seeing: PhotoSeeing
    suggestions: Suggestions
    hiding: PictureHider
    labels: LabelService
    promotions: Promotions
    drift: Drift
    lessons: ReportLessons
    notices: NoticeService
    inbox: StaffInbox
    catalogue: Catalogue
    calendar: CalendarService
    categories: CategoryAdministration
    library: StandardLibrary
    areas: AreaOverview
    routing: RoutingAdministration
    time_limits: TimeLimits
    timekeeper: Timekeeper
    reports: ReportService
    queries: ReportQueries
    duplicates: Duplicates
    topics: Topics
    people: ReportPeople
    call_backs: CallBacks
    scheme: IndicatorScheme
    statistics: Statistics
    positions: StaffPositions
    side_tasks: SideTasks
    monthly_sheets: MonthlySheets
    webhooks: WebhookService
    delivering: Delivering
    push: PushReceiver
    jobs: JobService
    exports: ReportExports
    batches: ReportBatches
    intake: IntakeService
    hotline_sheets: HotlineSheets
    findings: ReportFindings
    snapshots: SnapshotServices

    def wake(self, collection: str) -> None:
        """Tell the worker that ``collection`` has new debts; without it they wait for the next sweep."""
        self.cache.publish_soon(WAKE_CHANNEL, collection)

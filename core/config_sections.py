"""The sections of the configuration, each with its defaults; what each setting means stands in ``config.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr

SANDBOX_APPID = "wx5a4db0c0ffee0001"


class Section(BaseModel):
    """A section of the configuration, a room's or a common one. An unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """The HTTP front door."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    public_url: str = ""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()


class MongoDB(Section):
    """The database; no URL means the embedded one."""

    url: str | None = None
    database: str = "gongzhi"
    audit_database: str | None = None
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 20


class Redis(Section):
    """Caches, limits, locks, wake-ups; no URL means the embedded one."""

    url: str | None = None


class Sandbox(Section):
    """The stand-in for WeChat that `make run` starts."""

    enabled: bool = True
    port: Annotated[int, Field(ge=0, le=65535)] = 8100


class Folders(Section):
    """Where the embedded services and the photo store keep their files, relative to the project folder."""

    data: Path = Path("var")


class Keys(Section):
    """Secrets of at least 32 characters each. Changing ``index`` makes stored phones unsearchable."""

    data: SecretStr = SecretStr("development-only-data-key-0123456789ab")
    index: SecretStr = SecretStr("development-only-index-key-0123456789a")
    signing: SecretStr = SecretStr("development-only-signing-key-012345678")
    audit: SecretStr = SecretStr("development-only-audit-key-0123456789a")


class Templates(Section):
    """Ids of the subscribe-message templates chosen in the WeChat console, by what they tell."""

    filed: str = "tmpl-report-filed-0000000000000000000000001"
    dispatched: str = "tmpl-report-dispatched-00000000000000000001"
    closed: str = "tmpl-report-closed-000000000000000000000001"
    rework: str = "tmpl-report-rework-000000000000000000000001"
    supplement: str = "tmpl-report-supplement-00000000000000000001"


class WeChat(Section):
    """The mini-program's identity and the push callback."""

    base_url: str = "https://api.weixin.qq.com"
    appid: str = SANDBOX_APPID
    appsecret: SecretStr = SecretStr("0123456789abcdef0123456789abcdef")
    push_token: SecretStr = SecretStr("sandbox-push-token")
    push_aes_key: SecretStr = SecretStr("Z29uZ3poaS1zYW5kYm94LWVuY29kaW5nLWFlcy1rZXk")
    miniprogram_state: Literal["developer", "trial", "formal"] = "formal"
    templates: Templates = Templates()


class S3(Section):
    """How to reach the bucket, where photos are kept in one; what is empty is left to the service's own defaults."""

    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    virtual_hosted_style: bool = False


class Photos(Section):
    """Where photos go, and for how long an unused one is kept."""

    store: str = "file:var/photos"
    s3: S3 = S3()
    keep_unused_hours: Annotated[int, Field(ge=1)] = 24
    url_minutes: Annotated[int, Field(ge=1)] = 60
    original_minutes: Annotated[int, Field(ge=1, le=60)] = 10
    threads: Annotated[int, Field(ge=1)] = 2
    blur_threads: Annotated[int, Field(ge=1, le=64)] = 1
    detectors: Path = Path("inference/models")


class Sessions(Section):
    """How long people stay signed in, and when a staff account locks."""

    citizen_days: Annotated[int, Field(ge=1)] = 30
    staff_idle_minutes: Annotated[int, Field(ge=1)] = 30
    staff_hours: Annotated[int, Field(ge=1)] = 12
    staff_failures: Annotated[int, Field(ge=1)] = 5
    staff_lock_minutes: Annotated[int, Field(ge=1)] = 15
    staff_sessions: Annotated[int, Field(ge=1, le=100)] = 1
    second_factor: Literal["optional", "by_role"] = "optional"


class Passwords(Section):
    """What passwords of staff must be, and how long they last (GB/T 22239 level 3)."""

    min_length: Annotated[int, Field(ge=8, le=64)] = 10
    kinds: Annotated[int, Field(ge=1, le=4)] = 3
    history: Annotated[int, Field(ge=0, le=24)] = 5
    expiry_days: Annotated[int, Field(ge=0)] = 90


class Limit(Section):
    """At most ``count`` calls in any ``seconds`` (a sliding window of two halves)."""

    count: Annotated[int, Field(ge=1)]
    seconds: Annotated[int, Field(ge=1)]


class Limits(Section):
    """Request limits: by citizen (or staff) where one is signed in, by address where not."""

    enabled: bool = True
    read: Limit = Limit(count=600, seconds=60)
    write: Limit = Limit(count=120, seconds=60)
    report: Limit = Limit(count=20, seconds=3600)
    photo: Limit = Limit(count=60, seconds=3600)
    sign_in: Limit = Limit(count=60, seconds=60)
    partner: Limit = Limit(count=600, seconds=3600)


class WarningStep(Section):
    """At ``percent`` of a case's time limit, staff with one of ``roles`` who reach the case are told."""

    percent: Annotated[int, Field(ge=1, le=300)]
    roles: list[Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]]


class TimeLimit(Section):
    """So many hours or days on one of the four clocks (docs/time-limits.md)."""

    value: Annotated[int, Field(ge=1, le=8784)]
    unit: Literal["urgent_hour", "work_hour", "work_day", "natural_day"]


class Reports(Section):
    """How cases are numbered, how near is near, and when limits run."""

    division: Annotated[str, Field(pattern=r"^\d{6}$")] = "990101"
    similar_metres: Annotated[int, Field(ge=1, le=5000)] = 200
    similar_days: Annotated[int, Field(ge=1)] = 30
    working_periods: list[tuple[str, str]] = [("08:30", "12:00"), ("14:00", "17:30")]
    working_weekdays: list[Annotated[int, Field(ge=1, le=7)]] = [1, 2, 3, 4, 5]
    warnings: list[WarningStep] = [
        WarningStep(percent=50, roles=["unit"]),
        WarningStep(percent=80, roles=["unit", "dispatcher"]),
        WarningStep(percent=100, roles=["unit", "dispatcher", "duty_chief"]),
    ]
    warned_without_unit: list[Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]] = ["dispatcher"]
    dispatch_limit: TimeLimit = TimeLimit(value=2, unit="work_hour")
    closing_limit: TimeLimit = TimeLimit(value=1, unit="work_day")
    two_level: bool = False
    max_extensions: Annotated[int, Field(ge=0, le=10)] = 2
    max_suspension_days: Annotated[int, Field(ge=1, le=366)] = 365
    reopen_days: Annotated[int, Field(ge=1, le=365)] = 15
    urge_hours: Annotated[int, Field(ge=1)] = 24
    dormant_days: Annotated[int, Field(ge=1)] = 7


class SiteChecks(Section):
    """Checks on site: for which categories they are required, and to whom they are offered for how long."""

    before_filing: list[str] = []
    before_closing: list[str] = []
    collectors: list[str] = ["collector"]
    nearest: Annotated[int, Field(ge=1, le=50)] = 3
    metres: Annotated[int, Field(ge=50, le=50_000)] = 2000
    offer_minutes: Annotated[float, Field(gt=0)] = 10
    answer_minutes: Annotated[float, Field(gt=0)] = 60
    hours: Annotated[float, Field(gt=0)] = 4
    near_metres: Annotated[int, Field(ge=10, le=5000)] = 200
    position_minutes: Annotated[float, Field(gt=0, le=120)] = 30


class Open311(Section):
    """What the discovery document of Open311 says to developers."""

    contact: str = "请联系本区城市运行管理中心。"
    key_service: str = "请向本区城市运行管理中心申请接口密钥（api_key）。"


class AuditLog(Section):
    """How long audit entries are kept (the law wants six months at least), and how soon they are sealed."""

    retention_days: Annotated[int, Field(ge=180)] = 365
    seal_seconds: Annotated[float, Field(gt=0)] = 10.0


class Notices(Section):
    """The inboxes of staff."""

    keep_days: Annotated[int, Field(ge=1)] = 90


class Feed(Section):
    """The record of changes that live updates and webhooks follow."""

    keep_days: Annotated[int, Field(ge=1, le=365)] = 7
    lease_seconds: Annotated[float, Field(gt=0)] = 10.0


class Live(Section):
    """Live updates over WebSocket; the limits are of each application process."""

    connections: Annotated[int, Field(ge=1)] = 2000
    per_person: Annotated[int, Field(ge=1)] = 8
    queue: Annotated[int, Field(ge=1)] = 64
    window_ms: Annotated[int, Field(ge=0, le=5000)] = 100
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0
    check_seconds: Annotated[float, Field(gt=0)] = 10.0
    ping_seconds: Annotated[float, Field(gt=0)] = 20.0
    origins: list[str] = []


class Webhooks(Section):
    """Where webhooks may go, how long a receiver may take, and when one that fails is paused."""

    allowed_hosts: list[str] = []
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    pause_after_failures: Annotated[int, Field(ge=1)] = 20
    pause_after_hours: Annotated[float, Field(ge=0)] = 24.0


class Worker(Section):
    """What pays the debts that documents owe."""

    concurrency: Annotated[int, Field(ge=1)] = 8
    sweep_seconds: Annotated[float, Field(gt=0)] = 2.0
    lease_seconds: Annotated[float, Field(gt=0)] = 60.0
    jobs: Annotated[int, Field(ge=1, le=64)] = 2
    job_minutes: Annotated[float, Field(gt=0)] = 120.0
    gather_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    stands_back: bool = True
    memory_mb: Annotated[float, Field(ge=64)] = 1000.0
    patience_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    warn_seconds: Annotated[float, Field(gt=0)] = 10.0


class Inference(Section):
    """The classifiers of photos and texts, and where their weights are, relative to the project folder."""

    enabled: bool = True
    folder: Path = Path("inference/models")
    trained: Path | None = None
    follow_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    check_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    automatic_at: Annotated[float, Field(gt=0, le=1.01)] = 0.96
    nothing_at: Annotated[float, Field(gt=0, le=1.01)] = 0.9


class Files(Section):
    """Workbooks that people ask for and hand in: where they are kept, for how long, and how large one may be.

    A bucket is reached as ``photos.s3`` says.
    """

    store: str = "file:var/files"
    keep_days: Annotated[int, Field(ge=1)] = 7
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 200_000


class Snapshots(Section):
    """What cameras send: where pictures are kept for how long, and how much may wait to be looked at."""

    store: str = "file:var/snapshots"
    backlog: Annotated[int, Field(ge=1)] = 1000
    retry_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    receiving_mb: Annotated[int, Field(ge=11)] = 96
    oldest_hours: Annotated[int, Field(ge=1)] = 48
    review_hours: Annotated[int, Field(ge=1)] = 72
    keep_filtered_hours: Annotated[int, Field(ge=1)] = 24
    keep_decided_days: Annotated[int, Field(ge=1)] = 30
    keep_records_days: Annotated[int, Field(ge=1)] = 30


class Log(Section):
    """Logs go to standard error, one line an event."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"

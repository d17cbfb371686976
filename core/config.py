"""Every setting, with its default: ``config.yaml`` says it, an environment variable overrides it.

A nested setting ``wechat.appid`` is ``GONGZHI_WECHAT__APPID`` in the environment; ``MONGODB_URL`` and ``REDIS_URL``
stand for the two that every host knows. An unknown key is an error, not a silent default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

CONFIG_FILE = Path(__file__).resolve().parent.parent / "config.yaml"
ENVIRONMENT_PREFIX = "GONGZHI_"

# The keys that config.yaml carries so that a laptop needs no set-up. Public by nature: refused in production.
BUILT_IN_KEYS = frozenset(
    {
        "development-only-data-key-0123456789ab",
        "development-only-index-key-0123456789a",
        "development-only-signing-key-012345678",
        "development-only-audit-key-0123456789a",
        "0123456789abcdef0123456789abcdef",
        "sandbox-push-token",
        "Z29uZ3poaS1zYW5kYm94LWVuY29kaW5nLWFlcy1rZXk",
    }
)
SANDBOX_APPID = "wx5a4db0c0ffee0001"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """The HTTP front door."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    public_url: str = ""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()


class MongoDB(_Section):
    """The database; no URL means the embedded one."""

    url: str | None = None
    database: str = "gongzhi"
    audit_database: str | None = None
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 20


class Redis(_Section):
    """Caches, limits, locks, wake-ups; no URL means the embedded one."""

    url: str | None = None


class Sandbox(_Section):
    """The stand-in for WeChat that `make run` starts."""

    enabled: bool = True
    port: Annotated[int, Field(ge=0, le=65535)] = 8100


class Folders(_Section):
    """Where the embedded services and the photo store keep their files, relative to the project folder."""

    data: Path = Path("var")


class Keys(_Section):
    """Secrets of at least 32 characters each. Changing ``index`` makes stored phones unsearchable."""

    data: SecretStr = SecretStr("development-only-data-key-0123456789ab")
    index: SecretStr = SecretStr("development-only-index-key-0123456789a")
    signing: SecretStr = SecretStr("development-only-signing-key-012345678")
    audit: SecretStr = SecretStr("development-only-audit-key-0123456789a")


class Templates(_Section):
    """Ids of the subscribe-message templates chosen in the WeChat console, by what they tell."""

    filed: str = "tmpl-report-filed-0000000000000000000000001"
    dispatched: str = "tmpl-report-dispatched-00000000000000000001"
    closed: str = "tmpl-report-closed-000000000000000000000001"
    rework: str = "tmpl-report-rework-000000000000000000000001"
    supplement: str = "tmpl-report-supplement-00000000000000000001"


class WeChat(_Section):
    """The mini-program's identity and the push callback."""

    base_url: str = "https://api.weixin.qq.com"
    appid: str = SANDBOX_APPID
    appsecret: SecretStr = SecretStr("0123456789abcdef0123456789abcdef")
    push_token: SecretStr = SecretStr("sandbox-push-token")
    push_aes_key: SecretStr = SecretStr("Z29uZ3poaS1zYW5kYm94LWVuY29kaW5nLWFlcy1rZXk")
    miniprogram_state: Literal["developer", "trial", "formal"] = "formal"
    templates: Templates = Templates()


class S3(_Section):
    """How to reach the bucket, where photos are kept in one; what is empty is left to the service's own defaults."""

    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    virtual_hosted_style: bool = False


class Photos(_Section):
    """Where photos go, and for how long an unused one is kept."""

    store: str = "file:var/photos"
    s3: S3 = S3()
    keep_unused_hours: Annotated[int, Field(ge=1)] = 24
    url_minutes: Annotated[int, Field(ge=1)] = 60
    original_minutes: Annotated[int, Field(ge=1, le=60)] = 10
    threads: Annotated[int, Field(ge=1)] = 2
    blur_threads: Annotated[int, Field(ge=1, le=64)] = 1
    detectors: Path = Path("inference/models")


class Sessions(_Section):
    """How long people stay signed in, and when a staff account locks."""

    citizen_days: Annotated[int, Field(ge=1)] = 30
    staff_idle_minutes: Annotated[int, Field(ge=1)] = 30
    staff_hours: Annotated[int, Field(ge=1)] = 12
    staff_failures: Annotated[int, Field(ge=1)] = 5
    staff_lock_minutes: Annotated[int, Field(ge=1)] = 15
    staff_sessions: Annotated[int, Field(ge=1, le=100)] = 1
    second_factor: Literal["optional", "by_role"] = "optional"


class Passwords(_Section):
    """What passwords of staff must be, and how long they last (GB/T 22239 level 3)."""

    min_length: Annotated[int, Field(ge=8, le=64)] = 10
    kinds: Annotated[int, Field(ge=1, le=4)] = 3
    history: Annotated[int, Field(ge=0, le=24)] = 5
    expiry_days: Annotated[int, Field(ge=0)] = 90


class Limit(_Section):
    """At most ``count`` calls in any ``seconds`` (a sliding window of two halves)."""

    count: Annotated[int, Field(ge=1)]
    seconds: Annotated[int, Field(ge=1)]


class Limits(_Section):
    """Request limits: by citizen (or staff) where one is signed in, by address where not."""

    enabled: bool = True
    read: Limit = Limit(count=600, seconds=60)
    write: Limit = Limit(count=120, seconds=60)
    report: Limit = Limit(count=20, seconds=3600)
    photo: Limit = Limit(count=60, seconds=3600)
    sign_in: Limit = Limit(count=60, seconds=60)
    partner: Limit = Limit(count=600, seconds=3600)


class WarningStep(_Section):
    """At ``percent`` of a case's time limit, staff with one of ``roles`` who reach the case are told."""

    percent: Annotated[int, Field(ge=1, le=300)]
    roles: list[Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]]


class TimeLimit(_Section):
    """So many hours or days on one of the four clocks (docs/time-limits.md)."""

    value: Annotated[int, Field(ge=1, le=8784)]
    unit: Literal["urgent_hour", "work_hour", "work_day", "natural_day"]


class Reports(_Section):
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


class SideTasks(_Section):
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


class Open311(_Section):
    """What the discovery document of Open311 says to developers."""

    contact: str = "请联系本区城市运行管理中心。"
    key_service: str = "请向本区城市运行管理中心申请接口密钥（api_key）。"


class AuditLog(_Section):
    """How long audit entries are kept (the law wants six months at least), and how soon they are sealed."""

    retention_days: Annotated[int, Field(ge=180)] = 365
    seal_seconds: Annotated[float, Field(gt=0)] = 10.0


class Notices(_Section):
    """The inboxes of staff."""

    keep_days: Annotated[int, Field(ge=1)] = 90


class Feed(_Section):
    """The record of changes that live updates and webhooks follow."""

    keep_days: Annotated[int, Field(ge=1, le=365)] = 7
    lease_seconds: Annotated[float, Field(gt=0)] = 10.0


class Live(_Section):
    """Live updates over WebSocket; the limits are of each application process."""

    connections: Annotated[int, Field(ge=1)] = 2000
    per_person: Annotated[int, Field(ge=1)] = 8
    queue: Annotated[int, Field(ge=1)] = 64
    window_ms: Annotated[int, Field(ge=0, le=5000)] = 100
    poll_seconds: Annotated[float, Field(gt=0)] = 2.0
    check_seconds: Annotated[float, Field(gt=0)] = 10.0
    ping_seconds: Annotated[float, Field(gt=0)] = 20.0
    origins: list[str] = []


class Webhooks(_Section):
    """Where webhooks may go, how long a receiver may take, and when one that fails is paused."""

    allowed_hosts: list[str] = []
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    pause_after_failures: Annotated[int, Field(ge=1)] = 20
    pause_after_hours: Annotated[float, Field(ge=0)] = 24.0


class Worker(_Section):
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


class Inference(_Section):
    """The classifiers of photos and texts, and where their weights are, relative to the project folder."""

    enabled: bool = True
    folder: Path = Path("inference/models")
    trained: Path | None = None
    follow_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    check_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    automatic_at: Annotated[float, Field(gt=0, le=1.01)] = 0.96
    nothing_at: Annotated[float, Field(gt=0, le=1.01)] = 0.9


class Files(_Section):
    """Workbooks that people ask for and hand in: where they are kept, for how long, and how large one may be.

    A bucket is reached as ``photos.s3`` says.
    """

    store: str = "file:var/files"
    keep_days: Annotated[int, Field(ge=1)] = 7
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 200_000


class Snapshots(_Section):
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


class Log(_Section):
    """Logs go to standard error, one line an event."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(BaseSettings):
    """Every setting of the product."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
    )

    environment: Literal["development", "production"] = "development"
    demo: bool = True
    server: Server = Server()
    mongodb: MongoDB = MongoDB()
    redis: Redis = Redis()
    sandbox: Sandbox = Sandbox()
    folders: Folders = Folders()
    keys: Keys = Keys()
    wechat: WeChat = WeChat()
    photos: Photos = Photos()
    sessions: Sessions = Sessions()
    passwords: Passwords = Passwords()
    limits: Limits = Limits()
    reports: Reports = Reports()
    side_tasks: SideTasks = SideTasks()
    open311: Open311 = Open311()
    audit: AuditLog = AuditLog()
    notices: Notices = Notices()
    feed: Feed = Feed()
    live: Live = Live()
    webhooks: Webhooks = Webhooks()
    worker: Worker = Worker()
    inference: Inference = Inference()
    files: Files = Files()
    snapshots: Snapshots = Snapshots()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code, then the environment, then the file."""
        file = Path(os.environ.get("GONGZHI_CONFIG", CONFIG_FILE))
        return (init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file))


class ConfigurationError(Exception):
    """The settings cannot be used; the message lists each problem and what to set instead."""


def load_settings(**overrides: Any) -> Settings:
    """The settings in force: ``overrides``, then the environment, then ``config.yaml``, then the defaults.

    Raises :class:`ConfigurationError` for an unknown key, a value out of range, or what production refuses.
    """
    for name, section in (("MONGODB_URL", "mongodb"), ("REDIS_URL", "redis")):
        value = os.environ.get(name)
        if value and f"{ENVIRONMENT_PREFIX}{section.upper()}__URL" not in os.environ:
            overrides[section] = {"url": value, **overrides.get(section, {})}
    problems = _unknown_environment()
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        problems += [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(_listed(problems)) from error
    problems += production_problems(settings)
    if problems:
        raise ConfigurationError(_listed(problems))
    return settings


def _listed(problems: list[str]) -> str:
    return "The configuration cannot be used:\n" + "\n".join(f"  - {p}" for p in problems)


def _unknown_environment() -> list[str]:
    """Variables with our prefix that name no setting: pydantic-settings passes over them, people mistype them."""
    known = {f"{ENVIRONMENT_PREFIX}CONFIG"}
    for name, field in Settings.model_fields.items():
        known.add(f"{ENVIRONMENT_PREFIX}{name}".upper())
        _add_nested(known, f"{ENVIRONMENT_PREFIX}{name}".upper(), field.annotation)
    return [
        f"{name}: no such setting (an environment variable)"
        for name in os.environ
        if name.startswith(ENVIRONMENT_PREFIX) and name.upper() not in known
    ]


def _add_nested(known: set[str], path: str, annotation: Any) -> None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            known.add(f"{path}__{name}".upper())
            _add_nested(known, f"{path}__{name}".upper(), field.annotation)


def production_problems(settings: Settings) -> list[str]:
    """What must be set before this configuration may serve real people; empty in development."""
    if settings.environment != "production":
        return []
    problems = []
    if settings.mongodb.url is None:
        problems.append("mongodb.url: the embedded MongoDB is for development; set MONGODB_URL to your replica set")
    if settings.mongodb.audit_database in (None, settings.mongodb.database):
        problems.append(
            "mongodb.audit_database: the audit log needs a database of its own, in which the application may only find "
            "and insert; set it to such as gongzhi_audit, and see docs/audit.md"
        )
    if settings.redis.url is None:
        problems.append("redis.url: the embedded Valkey is for development; set REDIS_URL to your Redis or Valkey")
    if settings.sandbox.enabled:
        problems.append("sandbox.enabled: the WeChat sandbox is for development; set it to false")
    if settings.demo:
        problems.append("demo: the demo district and its accounts are for development; set it to false")
    if settings.sessions.second_factor != "by_role":
        problems.append("sessions.second_factor: roles that demand a second factor must get it; set it to by_role")
    if not settings.wechat.base_url.startswith("https://"):
        problems.append("wechat.base_url: set it to https://api.weixin.qq.com")
    if settings.wechat.appid == SANDBOX_APPID:
        problems.append("wechat.appid: set it to the appid of your mini-program")
    if not settings.server.public_url.startswith("https://"):
        problems.append("server.public_url: set it to the https:// address that WeChat and phones reach")
    secrets = {
        "keys.data": settings.keys.data,
        "keys.index": settings.keys.index,
        "keys.signing": settings.keys.signing,
        "keys.audit": settings.keys.audit,
        "wechat.appsecret": settings.wechat.appsecret,
        "wechat.push_token": settings.wechat.push_token,
        "wechat.push_aes_key": settings.wechat.push_aes_key,
    }
    for name, secret in secrets.items():
        variable = ENVIRONMENT_PREFIX + name.replace(".", "__").upper()
        if secret.get_secret_value() in BUILT_IN_KEYS:
            problems.append(f"{name}: the built-in value is public; set {variable} to a secret of your own")
        elif name.startswith("keys.") and len(secret.get_secret_value()) < 32:
            problems.append(f"{name}: shorter than 32 characters; `openssl rand -hex 32` makes a good one")
    for name, template in settings.wechat.templates.model_dump().items():
        if template.startswith("tmpl-"):
            problems.append(f"wechat.templates.{name}: set it to the template id from the WeChat console")
    return problems


def store_url(url: str) -> str:
    """``url`` of a store; a relative folder lies in the project's, wherever the program was started."""
    scheme, _, path = url.partition(":")
    return (CONFIG_FILE.parent / path).resolve().as_uri() if scheme == "file" and not path.startswith("/") else url


def s3_options(settings: Settings) -> dict[str, Any]:
    """How every store that is a bucket is reached, for :func:`core.object_store.open_store`."""
    s3 = settings.photos.s3
    return {
        "endpoint": s3.endpoint,
        "region": s3.region,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key.get_secret_value() if s3.secret_access_key else None,
        "virtual_hosted_style": s3.virtual_hosted_style,
    }

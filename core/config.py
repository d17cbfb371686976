"""Every setting, with its default: ``config.yaml`` says it, an environment variable overrides it.

A nested setting ``wechat.appid`` is ``GONGZHI_WECHAT__APPID`` in the environment; ``MONGODB_URL`` and ``REDIS_URL``
stand for the two that every host knows. An unknown key is an error, not a silent default.

Here are the sections that belong to no single room; a room brings its own (:attr:`core.room.Room.settings`), and
``server.rooms.load_settings`` loads all. The command line of one room loads what it uses, and passes over the sections
of others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from core.config_sections import (
    SANDBOX_APPID,
    AuditLog,
    Feed,
    Files,
    Folders,
    Inference,
    Keys,
    Limits,
    Live,
    Log,
    MongoDB,
    Notices,
    Open311,
    Passwords,
    Photos,
    Redis,
    Reports,
    Sandbox,
    Section,
    Server,
    Sessions,
    SiteChecks,
    Snapshots,
    Webhooks,
    WeChat,
    Worker,
)

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


S = TypeVar("S", bound=Section)


class Settings(BaseSettings):
    """The common settings; ``settings[GasSettings]`` is the section of that class, which a room has brought."""

    model_config = SettingsConfigDict(
        extra="ignore",
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
    side_tasks: SiteChecks = SiteChecks()
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

    def __getitem__(self, kind: type[S]) -> S:
        """The section of class ``kind``. Raises :class:`KeyError` where no room has brought it."""
        for section in self.__dict__.values():
            if type(section) is kind:
                return section
        raise KeyError(kind.__name__)

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


class _AllSettings(Settings):
    """What knows every section, and takes no other."""

    model_config = SettingsConfigDict(extra="forbid")


def settings_with(sections: Mapping[str, type[Section]]) -> type[Settings]:
    """The settings of a house whose rooms bring ``sections``, by name: every one there is.

    Raises :class:`ValueError` for a name that is taken.
    """
    if taken := sections.keys() & Settings.model_fields.keys():
        raise ValueError(f"sections of the common settings: {sorted(taken)}")
    fields: dict[str, Any] = {name: (kind, kind()) for name, kind in sections.items()}
    return create_model("Settings", __base__=_AllSettings, **fields)


class ConfigurationError(Exception):
    """The settings cannot be used; the message lists each problem and what to set instead."""


def load_settings(kind: type[Settings] = Settings, **overrides: Any) -> Settings:
    """The settings in force: ``overrides``, then the environment, then ``config.yaml``, then the defaults.

    ``kind`` says which sections there are; :class:`Settings` itself passes over those that it does not know.

    Raises :class:`ConfigurationError` for an unknown key, a value out of range, or what production refuses.
    """
    for name, section in (("MONGODB_URL", "mongodb"), ("REDIS_URL", "redis")):
        value = os.environ.get(name)
        if value and f"{ENVIRONMENT_PREFIX}{section.upper()}__URL" not in os.environ:
            overrides[section] = {"url": value, **overrides.get(section, {})}
    problems = _unknown_environment(kind) if kind.model_config["extra"] == "forbid" else []
    try:
        settings = kind(**overrides)
    except ValidationError as error:
        problems += [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(_listed(problems)) from error
    problems += production_problems(settings)
    if problems:
        raise ConfigurationError(_listed(problems))
    return settings


def _listed(problems: list[str]) -> str:
    return "The configuration cannot be used:\n" + "\n".join(f"  - {p}" for p in problems)


def _unknown_environment(kind: type[Settings]) -> list[str]:
    """Variables with our prefix that name no setting: pydantic-settings passes over them, people mistype them."""
    known = {f"{ENVIRONMENT_PREFIX}CONFIG"}
    for name, field in kind.model_fields.items():
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
    """How every store that is a bucket is reached, for :func:`core.storage.object_store.open_store`."""
    s3 = settings.photos.s3
    return {
        "endpoint": s3.endpoint,
        "region": s3.region,
        "access_key_id": s3.access_key_id,
        "secret_access_key": s3.secret_access_key.get_secret_value() if s3.secret_access_key else None,
        "virtual_hosted_style": s3.virtual_hosted_style,
    }

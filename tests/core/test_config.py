"""Settings: one file with all of them, overridden by the environment, strict about what it does not know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from core.config import CONFIG_FILE, ConfigurationError, Settings, production_problems
from server.rooms import HOUSE_SETTINGS, load_settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("GONGZHI_") or name in {"MONGODB_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each setting's path and default."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if isinstance(field.default, BaseModel) and not leaves_of_its_own(kind):
                yield (*path, name), plain(field.default)
            else:
                for inner, default in leaves(kind, (*path, name)):
                    yield inner, plain(value_at(field.default, inner[len(path) + 1 :])) if field.default else default
        else:
            yield (*path, name), plain(field.default)


def leaves_of_its_own(kind: type[BaseModel]) -> bool:
    """Whether every field of a section has a default; a limit's count and seconds have none."""
    return all(not f.is_required() for f in kind.model_fields.values())


def value_at(section: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        section = getattr(section, name)
    return section


def plain(value: Any) -> Any:
    """``value`` as YAML writes it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def in_file(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        assert name in document, f"config.yaml lacks {'.'.join(path)}"
        document = document[name]
    return document


FILE = yaml.safe_load(CONFIG_FILE.read_text("utf-8"))
SETTINGS = dict(leaves(HOUSE_SETTINGS))


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_every_setting_is_in_the_file_with_its_default(path):
    assert in_file(FILE, path) == SETTINGS[path]


def test_every_key_of_the_file_is_a_setting():
    def walk(document: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, value in document.items():
            here = (*path, name)
            if here in SETTINGS or not isinstance(value, dict):
                yield here
            else:
                yield from walk(value, here)

    assert set(walk(FILE)) == set(SETTINGS)


def test_without_anything_set_the_defaults_are_in_force():
    settings = load_settings()
    assert settings.environment == "development"
    assert settings.mongodb.url is None


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("GONGZHI_WECHAT__APPID", "wx0000000000000001", ("wechat", "appid"), "wx0000000000000001"),
        ("GONGZHI_SERVER__PORT", "9000", ("server", "port"), 9000),
        ("GONGZHI_DEMO", "false", ("demo",), False),
        ("GONGZHI_WECHAT__TEMPLATES__FILED", "abc", ("wechat", "templates", "filed"), "abc"),
        ("GONGZHI_LIMITS__READ__COUNT", "7", ("limits", "read", "count"), 7),
        ("GONGZHI_REPORTS__WORKING_WEEKDAYS", "[1, 2, 3]", ("reports", "working_weekdays"), [1, 2, 3]),
        ("GONGZHI_KEYS__DATA", "x" * 40, ("keys", "data"), SecretStr("x" * 40)),
        ("MONGODB_URL", "mongodb://db/", ("mongodb", "url"), "mongodb://db/"),
        ("REDIS_URL", "redis://cache/", ("redis", "url"), "redis://cache/"),
    ],
)
def test_the_environment_overrides_the_file(monkeypatch, variable, value, path, expected):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("GONGZHI_MONGODB__DATABASE", "kept")
    before = dict(os.environ)
    settings = load_settings()
    assert os.environ == before, "whoever is started next inherits it"
    assert value_at(settings, path) == expected
    assert settings.mongodb.database == "kept"
    assert settings.limits.read.seconds == 60, "the rest of a section stays as the file says"


def test_of_two_addresses_of_a_database_the_one_with_our_name_counts(monkeypatch):
    monkeypatch.setenv("MONGODB_URL", "mongodb://everybodys/")
    monkeypatch.setenv("GONGZHI_MONGODB__URL", "mongodb://ours/")
    assert load_settings().mongodb.url == "mongodb://ours/"


def test_another_file_can_be_named(monkeypatch, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("server: {port: 1234}\n")
    monkeypatch.setenv("GONGZHI_CONFIG", str(file))
    assert load_settings().server.port == 1234


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sever: {port: 1}\n", "sever"),
        ("server: {prot: 1}\n", "server.prot"),
        ("wechat: {templates: {field: x}}\n", "wechat.templates.field"),
        ("limits: {read: {count: 1, seconds: 1, hours: 1}}\n", "limits.read.hours"),
        ("server: {port: many}\n", "server.port"),
        ("server: {port: 70000}\n", "server.port"),
        ("environment: staging\n", "environment"),
        ("reports: {division: '12'}\n", "reports.division"),
        ("worker: {sweep_seconds: 0}\n", "worker.sweep_seconds"),
        ("audit: {retention_days: 179}\n", "audit.retention_days"),
    ],
)
def test_a_key_or_value_that_the_file_must_not_have_is_named(monkeypatch, tmp_path, text, named):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    monkeypatch.setenv("GONGZHI_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=rf"(?m)^  - {named}: "):
        load_settings()


@pytest.mark.parametrize("name", ["GONGZHI_SEVER__PORT", "GONGZHI_SERVER__PROT", "GONGZHI_PORT", "GONGZHI_SERVER_PORT"])
def test_a_variable_that_names_no_setting_is_an_error(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match=f"{name}: no such setting"):
        load_settings()


def in_order() -> dict[str, Any]:
    """A configuration that production takes."""
    return {
        "environment": "production",
        "demo": False,
        "server": {"public_url": "https://gongzhi.example.gov.cn"},
        "mongodb": {"url": "mongodb://db/?replicaSet=rs0", "audit_database": "gongzhi_audit"},
        "redis": {"url": "redis://cache"},
        "sessions": {"second_factor": "by_role"},
        "sandbox": {"enabled": False},
        "keys": {"data": "d" * 32, "index": "i" * 32, "signing": "s" * 32, "audit": "t" * 32},
        "wechat": {
            "appid": "wx1111111111111111",
            "appsecret": "a" * 32,
            "push_token": "token-of-ours",
            "push_aes_key": "k" * 43,
            "templates": {"filed": "A1", "dispatched": "A2", "closed": "A3", "rework": "A4", "supplement": "A5"},
        },
    }


def test_production_takes_a_configuration_that_is_in_order():
    assert load_settings(**in_order()).environment == "production"


REFUSED: dict[str, Any] = {
    "mongodb.url": None,
    "mongodb.audit_database": None,
    "redis.url": None,
    "sessions.second_factor": "optional",
    "sandbox.enabled": True,
    "demo": True,
    "wechat.base_url": "http://127.0.0.1:8100",
    "wechat.appid": "wx5a4db0c0ffee0001",
    "server.public_url": "http://gongzhi.example.gov.cn",
    "keys.data": "development-only-data-key-0123456789ab",
    "keys.index": "development-only-index-key-0123456789a",
    "keys.signing": "development-only-signing-key-012345678",
    "keys.audit": "development-only-audit-key-0123456789a",
    "wechat.appsecret": "0123456789abcdef0123456789abcdef",
    "wechat.push_token": "sandbox-push-token",
    "wechat.push_aes_key": "Z29uZ3poaS1zYW5kYm94LWVuY29kaW5nLWFlcy1rZXk",
    "wechat.templates.filed": "tmpl-report-filed-0000000000000000000000001",
    "wechat.templates.rework": "tmpl-mine",
}


@pytest.mark.parametrize("name", REFUSED)
def test_production_refuses_what_is_for_development_and_says_what_to_set(name):
    given = in_order()
    *sections, last = name.split(".")
    section = given
    for key in sections:
        section = section.setdefault(key, {})
    section[last] = REFUSED[name]
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(**given)
    lines = str(refusal.value).splitlines()[1:]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"  - {name}: ")
    assert "set" in lines[0]
    secret = REFUSED[name]
    if name.startswith(("keys.", "wechat.push")):
        assert secret not in lines[0], "a message must not repeat a secret"


def test_production_refuses_a_short_key():
    given = in_order()
    given["keys"]["signing"] = "short"
    with pytest.raises(ConfigurationError, match=r"keys\.signing: shorter than 32"):
        load_settings(**given)


def test_all_problems_are_listed_at_once():
    problems = production_problems(Settings(environment="production"))
    assert len(problems) >= len(REFUSED)


def test_development_refuses_nothing():
    assert production_problems(Settings(demo=True)) == []


def test_no_secret_is_shown_when_settings_are_printed():
    shown = repr(Settings()) + str(Settings().model_dump())
    for secret in (v for k, v in REFUSED.items() if k.startswith("keys.") or k in {"wechat.appsecret"}):
        assert secret not in shown

"""Whatever stands in whichever field of whichever request is taken as what it is, or refused in words."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, get_args, get_origin

import pytest
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from core.errors import Invalid
from handlers.base import _validated
from handlers.models import Body, GivenMoment, Query
from handlers.problems import explain
from server.rooms import ROOMS

HUGE = int("1" + "0" * 400)
"""More than a float holds."""
NO_MOMENTS: tuple[Any, ...] = (0, 20261130, 1796000000, 1796000000.5, "0", "20261130", "1796000000", "2026-11-30", True)
MOMENTS = ("2026-11-30T10:30:00+08:00", "2026-11-30T02:30:00Z", "2026-11-30t02:30:00.250z")


def _all(model: type[Body]) -> Iterator[type[Body]]:
    for each in model.__subclasses__():
        yield each
        yield from _all(each)


def models() -> list[type[Body]]:
    """Every model of a body, a query or a part of one."""
    for room in ROOMS:
        for module in room.http:
            importlib.import_module(module)
    found = {m for m in _all(Body) if not m.__module__.startswith("tests.")}
    return sorted(found, key=lambda m: (m.__module__, m.__qualname__))


def fields() -> list[tuple[type[Body], str, FieldInfo]]:
    """Every field of theirs, by the name that a client gives it."""
    return [(m, f.alias or name, f) for m in models() for name, f in m.model_fields.items()]


def parts(annotation: Any) -> set[Any]:
    """The types that an annotation is made of, but for those within models."""
    inner = get_args(annotation)
    if not inner:
        return {annotation}
    return {get_origin(annotation)}.union(*(parts(each) for each in inner))


def refusal(model: type[Body], name: str, value: Any) -> list[str]:
    """What is said of the field when it is given so, with nothing else; empty: it is taken."""
    given = {name: value}
    try:
        if issubclass(model, Query):
            model.model_validate({name: str(value)})
        else:
            _validated(model, json.dumps(given).encode())
    except (ValidationError, Invalid) as error:
        refused = explain(error) if isinstance(error, ValidationError) else error
        return [f["problem"] for f in refused.details["fields"] if f["field"].split(".")[0] == name]
    return []


def test_there_is_something_to_try():
    assert len(models()) > 80
    assert len(fields()) > 250
    assert sum(int in parts(f.annotation) for _, _, f in fields()) > 40


@pytest.mark.parametrize("value", [HUGE, -HUGE, 1e308, True, None, [], {}, "x" * 100_000, "\u0000"])
def test_no_value_in_no_field_is_more_than_can_be_answered(value):
    for model, name, _ in fields():
        refusal(model, name, value)


def test_a_number_beyond_all_bounds_is_refused_wherever_a_number_is_asked_for():
    for model, name, field in fields():
        if parts(field.annotation) & {int, float} and not parts(field.annotation) & {str}:
            for value in (HUGE, -HUGE):
                said = refusal(model, name, value)
                assert said, f"{model.__name__}.{name}"
                assert all("格式不正确" not in each for each in said), f"{model.__name__}.{name}: {said}"


def test_true_is_no_number_and_a_number_no_truth():
    for model, name, field in fields():
        found = parts(field.annotation)
        if issubclass(model, Query) or found & {str, Any}:
            continue
        if int in found and bool not in found:
            assert refusal(model, name, True), f"{model.__name__}.{name}"
        if bool in found and int not in found:
            assert refusal(model, name, 1), f"{model.__name__}.{name}"


def test_a_moment_is_a_text_with_an_offset_wherever_one_is_given():
    adapter: TypeAdapter[Any] = TypeAdapter(GivenMoment)
    assert [adapter.validate_python(moment).year for moment in MOMENTS] == [2026] * 3
    tried = 0
    for model, name, field in fields():
        if parts(field.annotation).isdisjoint({datetime, AwareDatetime}):
            continue
        tried += 1
        for value in NO_MOMENTS:
            said = refusal(model, name, value)
            assert said, f"{model.__name__}.{name} takes {value!r}"
            assert "时间" in said[0]
        assert "时区" in refusal(model, name, "2026-11-30T10:30:00")[0], f"{model.__name__}.{name}"
        assert not refusal(model, name, MOMENTS[0])
    assert tried >= 9

"""Turns what a model found wrong into a sentence that a person can act on."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from core.errors import Invalid
from handlers.field_names import named

_SENTENCES = {
    "missing": "请填写",
    "extra_forbidden": "没有这个参数，请检查拼写",
    "string_type": "应为文字",
    "string_pattern_mismatch": "格式不正确",
    "int_type": "应为整数",
    "int_parsing": "应为整数",
    "int_from_float": "应为整数",
    "int_parsing_size": "数字过大",
    "float_type": "应为数字",
    "float_parsing": "应为数字",
    "finite_number": "应为有限的数字",
    "bool_type": "应为 true 或 false",
    "bool_parsing": "应为 true 或 false",
    "greater_than_equal": "不能小于 {ge}",
    "greater_than": "应大于 {gt}",
    "less_than_equal": "不能大于 {le}",
    "less_than": "应小于 {lt}",
    "list_type": "应为列表",
    "dict_type": "应为对象",
    "model_type": "应为对象",
    "model_attributes_type": "应为对象",
    "literal_error": "应为以下之一：{expected}",
    "enum": "应为以下之一：{expected}",
    "json_invalid": "不是合法的 JSON",
    "timezone_aware": "时间需带时区，例如 2026-11-22T10:30:00+08:00",
    "date_parsing": "不是合法的日期，例如 2026-11-22",
    "date_from_datetime_parsing": "不是合法的日期，例如 2026-11-22",
    "date_from_datetime_inexact": "不是合法的日期，例如 2026-11-22",
    "datetime_parsing": "不是合法的时间，例如 2026-11-22T10:30:00+08:00",
    "date_type": "不是合法的日期，例如 2026-11-22",
    "datetime_type": "不是合法的时间，例如 2026-11-22T10:30:00+08:00",
    "datetime_from_date_parsing": "不是合法的时间，例如 2026-11-22T10:30:00+08:00",
}
_TOO_SHORT = ("string_too_short", "too_short")
_TOO_LONG = ("string_too_long", "too_long")
# Longitudes of China, in degrees: what is none of its latitudes.
_CHINA = (73, 136)


def explain(error: ValidationError) -> Invalid:
    """The 422 for ``error``: each field with what is wrong with it, never with what was given."""
    found = error.errors(include_url=False)
    fields = [{"field": ".".join(str(p) for p in item["loc"]), "problem": _problem(item)} for item in found]
    first, problem = found[0], fields[0]["problem"]
    # A name that we do not know is repeated as it came.
    name = str(first["loc"][-1]) if first["type"] == "extra_forbidden" else named(error.title, first["loc"])
    said = f"{problem}{name}" if first["type"] == "missing" else f"{name}：{problem}" if name else problem
    more = f"（共 {len(fields)} 处）" if len(fields) > 1 else ""
    return Invalid(f"请检查填写的内容。{said}{more}", details={"fields": fields})


def _problem(item: Any) -> str:
    """What is wrong with one field."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _TOO_SHORT or kind in _TOO_LONG:
        return _length(item, context)
    sentence = _SENTENCES.get(kind)
    if sentence is None:  # a ValueError raised by one of our validators carries its own Chinese sentence
        return str(context.get("error", "格式不正确"))
    problem = sentence.format(**{name: _shown(value) for name, value in context.items()})
    return f"{problem}，经度和纬度可能填反了，请核对" if kind == "less_than_equal" and _is_longitude(item) else problem


def _length(item: Any, context: dict[str, Any]) -> str:
    """A text is counted in characters, whatever the model counts; anything else in pieces."""
    word = "个字" if isinstance(item["input"], str) else "项"
    if item["type"] in _TOO_LONG:
        return f"最多 {context['max_length']} {word}"
    least = context["min_length"]
    return "不能为空" if least == 1 and word == "个字" else f"至少 {least} {word}"


def _shown(value: Any) -> str:
    """A bound or a list of choices as people write it: 90, not 90.0; wgs84、gcj02 或 bd09."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).replace("'", "").replace(", ", "、").replace(" or ", " 或 ")


def _is_longitude(item: Any) -> bool:
    """Whether what was given for a latitude can only be a longitude."""
    try:
        degrees = float(item["input"])
    except (TypeError, ValueError, OverflowError):
        return False
    return item["loc"][-1] in ("latitude", "lat") and _CHINA[0] <= degrees <= _CHINA[1]

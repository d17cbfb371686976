"""Turns what a model found wrong into a sentence that a person can act on."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from core.errors import Invalid

_SENTENCES = {
    "missing": "必填",
    "extra_forbidden": "没有这个参数，请检查拼写",
    "string_type": "应为文字",
    "string_too_short": "至少 {min_length} 个字",
    "string_too_long": "最多 {max_length} 个字",
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
    "too_short": "至少 {min_length} 项",
    "too_long": "最多 {max_length} 项",
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
    "datetime_from_date_parsing": "不是合法的时间，例如 2026-11-22T10:30:00+08:00",
}


def explain(error: ValidationError) -> Invalid:
    """The 422 for ``error``: each field with what is wrong with it, never with what was given."""
    fields = []
    for item in error.errors(include_url=False, include_input=False):
        context: dict[str, Any] = item.get("ctx", {})
        sentence = _SENTENCES.get(item["type"])
        # A ValueError raised by one of our validators carries its own Chinese sentence.
        problem = str(context.get("error", "格式不正确")) if sentence is None else sentence.format(**context)
        fields.append({"field": ".".join(str(p) for p in item["loc"]), "problem": problem})
    first = fields[0]
    named = f"{first['field']}：{first['problem']}" if first["field"] else first["problem"]
    more = f"（共 {len(fields)} 处）" if len(fields) > 1 else ""
    return Invalid(f"请检查填写的内容。{named}{more}", details={"fields": fields})

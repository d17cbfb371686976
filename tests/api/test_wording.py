"""What people read when something is refused is said in the field's own words, with the district's own figures."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from admin.accounts.session import Credentials
from admin.reports.case_views import ActionBody
from core.clock import now
from handlers.field_names import NAMES, named
from handlers.problems import explain
from miniprogram_api.report_models import NewReportBody, ReportsQuery
from reports.catalogue.standards import STANDARDS
from reports.lifecycle.guards import FACTS, Policy, told
from reports.lifecycle.table import NEED_NAMES, TRANSITIONS
from reports.limits.warnings import _text
from server.rooms import ROOMS as HOUSE
from server.rooms import routes_of
from tests import ROOT
from tests.api.support import fields, problem

ROUTES = routes_of(HOUSE)
PLACE = {"longitude": 113.2, "latitude": 23.1, "crs": "gcj02"}
REPORT = {"description": "路口有一堆垃圾", "photo_ids": ["0" * 26], "location": PLACE}
SWAPPED = {"longitude": 23.1, "latitude": 113.2, "crs": "gcj02"}

# The words that were, in whatever the product says.
RETIRED = (
    *("拒收", "到现场核查", "重新打开", "群众反映", "群众催办", "余项另立", "已现场处置", "补拍", "没有人办理"),
    *("位置核定在", "并入的案件编号", "全部办结", "没有这个操作", "不由您来做", "不能这样操作", "必填", "不接受这"),
    *("请过一天", "时间已久", "已到处置时限", "（把握", "照片像是", "没有看出问题", "人已满", "由指挥中心查看", "实名"),
    *("责任部门", "超期", "交办街道", "会说同样协议", "打码", "都是真的", "现场已核实", "不认识的键", "裸处理器"),
    *("诉求人", "把握足够"),
)
ROOMS = (
    "accounts",
    "admin",
    "core",
    "handlers",
    "miniprogram_api",
    "notices",
    "photos",
    "places",
    "reports",
    "server",
    "worktime",
)


def texts() -> Iterator[tuple[str, str]]:
    """The files in which the product says something, and what is in them."""
    for room in (*ROOMS, "inference", "webhooks"):
        for path in (ROOT / room).rglob("*"):
            here = path.relative_to(ROOT).as_posix()
            # Phrases that people write, to be recognised, are theirs.
            if path.suffix in (".py", ".yaml") and not here.startswith(("inference/training", "server/demo/data")):
                yield here, path.read_text("utf-8")
    for name in ("README.md", "README.zh-CN.md"):
        yield name, (ROOT / name).read_text("utf-8")


def test_no_word_that_the_field_does_not_use_is_said_any_more():
    found = [(where, word) for where, text in texts() for word in RETIRED if word in text]
    assert found == []


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models(inner)


def asked() -> dict[str, set[str]]:
    """Every name by which a request may name a field, with the models that have it."""
    found: dict[str, set[str]] = {}
    todo: list[type[BaseModel]] = []
    todo += [m for r in ROUTES for o in r.operations.values() for m in (o.body, o.query) if m is not None]
    seen: set[type[BaseModel]] = set()
    while todo:
        model = todo.pop()
        if model not in seen:
            seen.add(model)
            for name, declared in model.model_fields.items():
                found.setdefault(name, set()).add(model.__name__)
                todo += models(declared.annotation)
    return found


def test_every_field_that_can_be_wrong_has_a_name_that_people_read():
    names = {name for name in asked() if name not in ("fields", "files")}  # a form as it came, never refused as such
    assert names - NAMES.keys() == set()
    assert {name for name in NAMES if "." not in name} - names == set(), "of no field any more"


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        (NewReportBody, {**REPORT, "description": "垃圾"}, "问题描述：至少 5 个字"),
        (NewReportBody, {**REPORT, "description": "垃" * 501}, "问题描述：最多 500 个字"),
        (NewReportBody, {**REPORT, "photo_ids": []}, "照片：至少 1 项"),
        (NewReportBody, {**REPORT, "photo_ids": ["0" * 26] * 7}, "照片：最多 6 项"),
        (NewReportBody, {**REPORT, "photo_ids": ["0" * 26, "x"]}, "照片第 2 项：格式不正确"),
        (NewReportBody, {**REPORT, "location": {**PLACE, "latitude": 90.5}}, "纬度：不能大于 90，经度和纬度可能填反了"),
        (NewReportBody, {**REPORT, "location": SWAPPED}, "纬度：不能大于 90，经度和纬度可能填反了，请核对"),
        (NewReportBody, {**REPORT, "location": {**PLACE, "longitude": -181}}, "经度：不能小于 -180"),
        (NewReportBody, {**REPORT, "location": {**PLACE, "crs": "x"}}, "坐标系：应为以下之一：wgs84、gcj02 或 bd09"),
        (NewReportBody, {**REPORT, "location": {"longitude": 1, "latitude": 2}}, "请填写坐标系"),
        (NewReportBody, {**REPORT, "answers": {"danger": 1}}, "问题的回答「danger」：应为文字"),
        (NewReportBody, {**REPORT, "descripton": "x"}, "descripton：没有这个参数，请检查拼写"),
        (ReportsQuery, {"near": "23.1,113.2,gcj02"}, "纬度：不能大于 90，经度和纬度可能填反了，请核对"),
        (ActionBody, {"reason": ""}, "理由：不能为空"),
        (ActionBody, {"children": [{"description": "短"}]}, "拆分出的案件第 1 项的问题描述：至少 5 个字"),
        (ActionBody, {"until": "明天"}, "挂账截止日期：不是合法的日期，例如 2026-11-22"),
        (Credentials, {"username": "x", "password": "y"}, "用户名：格式不正确"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_by_the_fields_name(model, body, said):
    with pytest.raises(ValidationError) as wrong:
        model.model_validate(body)
    refusal = explain(wrong.value)
    assert refusal.message.startswith(f"请检查填写的内容。{said}")
    assert not refusal.message.endswith("（共 1 处）")


def test_only_what_cannot_be_a_latitude_of_china_is_taken_for_a_longitude():
    with pytest.raises(ValidationError) as wrong:
        NewReportBody.model_validate({**REPORT, "location": {**PLACE, "latitude": 150}})
    assert "填反" not in explain(wrong.value).message


def test_names_within_lists_say_which_one():
    assert named("ActionBody", ("location", "latitude")) == "纬度"
    assert named("NewCategory", ("conditions", 1, "limit", "value")) == "立案条件第 2 项的数值"
    assert named("BatchBody", ("until",)) == "挂账截止日期"
    assert named("CaseFilters", ("until",)) == "截止时间"


def test_the_districts_own_figures_are_said():
    policy = replace(Policy(), urge_hours=6, reopen_days=30, max_extensions=1, dormant_days=3)
    assert "6 小时内不能重复催办" in told(FACTS["not_urged_lately"], policy)
    assert told(FACTS["closed_lately"], policy) == "结案已超过 30 天，不能再申请复查，请重新上报。"
    assert "最多延期 1 次" in told(FACTS["extension_left"], policy)
    assert not [name for name in FACTS if "{" in told(FACTS[name], policy)]


def test_whoever_is_to_hurry_is_told_with_what():
    due = {"_id": "1", "category_name": "其他", "due_at": now()}
    assert _text({**due, "unit_id": "roads"}, 100).endswith("届满，请尽快处置。")
    assert _text({**due, "unit_id": None}, 100).endswith("届满，请尽快派遣。")
    assert "已超时" in _text({**due, "unit_id": "roads"}, 150)


async def test_digits_of_one_length_are_asked_for_as_such():
    row = "部件,1,01,名,条件,结案,1,工作时"
    parsed = await STANDARDS.read(f"{','.join(STANDARDS.columns)}\n{row}\n".encode())
    assert "应为 2 位数字" in [p.problem for p in parsed.problems]


async def test_an_action_is_refused_in_the_fields_words(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    staff = await district.staff("duty_chief")

    async def said(action: str, status: int, code: str, **body: Any) -> str:
        answer = await staff.call("POST", f"/reports/{number}/actions/{action}", json=body)
        problem(answer, status, code)
        return str(answer.json()["message"])

    assert await said("note", 422, "INVALID") == "请检查填写的内容。请填写说明"
    assert await said("dispatch", 422, "INVALID") == "请检查填写的内容。请选择处置部门"
    assert await said("note", 422, "INVALID", note="x", reason="y") == "请检查填写的内容。「备注」无需填写此项（理由）"
    assert await said("close", 409, "STALE_STATE") == "案件当前为「待派遣」，不能执行此操作，请刷新。"
    assert await said("note", 409, "STALE_VERSION", note="x", version=99) == "案件有新的进展，请刷新后再操作。"
    assert await said("nothing", 404, "NO_SUCH_ACTION") == "不支持该操作。"
    assert await said("rate", 403, "NOT_YOURS_TO_DO") == "该操作不属于您的职责。"
    citizen = await district.citizen()
    swapped = {"longitude": 23.16, "latitude": 113.26, "crs": "gcj02"}
    body = {"description": "路口有一堆垃圾", "photo_ids": [await citizen.photo()], "location": swapped}
    answer = await citizen.call("POST", "/reports", json=body)
    assert fields(problem(answer, 422, "INVALID")) == {"location.latitude"}, "programs know it by its path"
    assert "经度和纬度可能填反了" in answer.json()["message"]


def test_what_is_given_with_an_action_has_one_name():
    assert NEED_NAMES["into"] == NAMES["into"] == "主案件编号"
    other = {name for name in NEED_NAMES if NAMES.get(name, NEED_NAMES[name]) != NEED_NAMES[name]}
    assert other == {"until"}, "which is named in full where it is that of a suspension"
    assert {t.label for t in TRANSITIONS if t.action == "refuse"} == {"退回"}

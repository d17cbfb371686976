"""Subscribe messages and mini-program codes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from .conftest import TEMPLATE, Caller

SEND = "/cgi-bin/message/subscribe/send"
CODE = "/wxa/getwxacodeunlimit"


async def test_one_accept_is_one_send_and_accepts_add_up(caller: Caller):
    openid = await caller.openid("wang")
    message = {
        "touser": openid,
        "template_id": TEMPLATE,
        "page": "pages/report/detail?id=7",
        "data": {"thing1": {"value": "井盖破损"}, "time2": {"value": "2026年3月1日 15:01"}},
    }
    assert (await caller.call(SEND, **message))["errcode"] == 43101
    await caller.order("accepts", openid=openid, template_id=TEMPLATE)
    left = await caller.order("accepts", user="wang", template_id=TEMPLATE)
    assert left == {"openid": openid, "template_id": TEMPLATE, "count": 2}
    first, second = await caller.call(SEND, **message), await caller.call(SEND, **message)
    assert first["errcode"] == second["errcode"] == 0
    assert first["msgid"] != second["msgid"]
    assert (await caller.call(SEND, **message))["errcode"] == 43101
    newest, oldest = await caller.received("messages", openid=openid)
    assert (newest["msgid"], oldest["msgid"]) == (second["msgid"], first["msgid"])
    assert oldest["data"] == {"thing1": "井盖破损", "time2": "2026年3月1日 15:01"}
    assert oldest["page"] == "pages/report/detail?id=7"
    assert (await caller.ask("received"))["calls"][SEND] == {"43101": 2, "0": 2}
    assert await caller.received("messages", user="somebody else") == []


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("thing1", "一" * 20, "一" * 21),
        ("character_string1", "GZ-2026-000123", "案件123"),
        ("character_string2", "x" * 32, "x" * 33),
        ("phrase1", "处理完成", "已处理完成了"),
        ("phrase2", "已办结", "done"),
        ("time1", "15:01", "25:01"),
        ("time2", "2019年10月1日 15:01~2019年10月1日 16:01", "2019年13月1日 15:01"),
        ("time3", "2026-03-01 15:01:00", "2026-03-01"),
        ("date1", "2019年10月1日", "2019年2月30日"),
        ("date2", "2019年10月1日 15:01", "昨天"),
        ("number1", "12.5", "１２"),
        ("amount1", "¥12.50元", "十二元"),
        ("name1", "欧阳娜娜", "张3"),
        ("name2", "Alexander Smith", "一二三四五六七八九十一"),
        ("phone_number1", "+86-0766-66888866", "电话"),
        ("car_number1", "粤A8Z888挂", "粤A8Z8888挂了"),
        ("letter1", "abc", "abc1"),
        ("symbol1", "!?", "!!!!!!"),
        ("const1", "待处理", "一" * 21),
    ],
)
async def test_a_value_keeps_to_its_type_and_a_refused_send_spends_nothing(
    caller: Caller, key: str, good: str, bad: str
):
    openid = await caller.openid()
    await caller.order("accepts", template_id=TEMPLATE)
    message = {"touser": openid, "template_id": TEMPLATE}
    refused = await caller.call(SEND, **message, data={key: {"value": bad}})
    assert refused["errcode"] == 47003
    assert refused["errmsg"].startswith(f"argument invalid! data.{key}.value invalid rid: ")
    assert (await caller.call(SEND, **message, data={key: {"value": good}}))["errcode"] == 0


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"touser": "oSomebodyOfAnotherProgram000"}, 40003),
        ({"touser": 7}, 40003),
        ({"template_id": "short"}, 40037),
        ({"template_id": None}, 40037),
        ({"page": "/pages/index"}, 41030),
        ({"miniprogram_state": "beta"}, 40097),
        ({"lang": "fr_FR"}, 40097),
        ({"data": "text"}, 47001),
        ({"data": {}}, 47003),
        ({"data": {"thing1": {"value": ""}}}, 47003),
        ({"data": {"thing1": {"value": 5}}}, 47001),
        ({"data": {"poem1": {"value": "x"}}}, 47003),
    ],
)
async def test_a_message_out_of_form_is_refused(caller: Caller, change: dict[str, object], errcode: int):
    openid = await caller.openid()
    await caller.order("accepts", template_id=TEMPLATE)
    good = {"touser": openid, "template_id": TEMPLATE, "data": {"thing1": {"value": "好"}}}
    assert (await caller.call(SEND, **good | change))["errcode"] == errcode
    assert (await caller.call(SEND, **good))["errcode"] == 0


async def test_only_the_templates_and_pages_that_were_listed_are_known(caller: Caller):
    caller.settings.templates, caller.settings.pages = [TEMPLATE], ["pages/index"]
    openid = await caller.openid()
    await caller.order("accepts", template_id=TEMPLATE)
    message = {"touser": openid, "template_id": TEMPLATE, "data": {"thing1": {"value": "好"}}}
    assert (await caller.call(SEND, **message | {"template_id": "another_template_1"}))["errcode"] == 40037
    assert (await caller.call(SEND, **message | {"page": "pages/none"}))["errcode"] == 41030
    assert (await caller.call(SEND, **message | {"page": "pages/index?a=1"}))["errcode"] == 0
    assert (await caller.call(CODE, scene="a", page="pages/none"))["errcode"] == 41030
    unpublished = await caller.raw(CODE, {"scene": "a", "page": "pages/none", "check_path": False})
    assert unpublished.headers["Content-Type"] == "image/jpeg"


async def test_a_mini_program_code_is_a_jpeg_of_the_width_asked_for(caller: Caller):
    scene = "s=Ab9!#$&'()*+,/:;=?@-._~"
    answer = await caller.raw(CODE, {"scene": scene, "page": "pages/shop/code", "width": 300, "env_version": "trial"})
    assert answer.headers["Content-Type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("JPEG", (300, 300))
    assert picture.info["comment"] == f"pages/shop/code?scene={scene}".encode()
    other = await caller.raw(CODE, {"scene": "another", "width": 300})
    assert other.content != answer.content
    (newest, first) = await caller.received("codes")
    assert first["scene"] == scene
    assert newest["width"] == 300


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"scene": None}, 40169),
        ({"scene": "x" * 33}, 40169),
        ({"scene": "中文"}, 40169),
        ({"scene": "100%"}, 40169),
        ({"page": "/pages/index"}, 41030),
        ({"page": "pages/index?a=1"}, 41030),
        ({"width": 279}, 40097),
        ({"width": 1281}, 40097),
        ({"env_version": "beta"}, 40097),
        ({"check_path": "no"}, 47001),
    ],
)
async def test_a_code_out_of_form_is_refused_as_json(caller: Caller, change: dict[str, object], errcode: int):
    answer = await caller.raw(CODE, {"scene": "a=1", "page": "pages/index"} | change)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["errcode"] == errcode

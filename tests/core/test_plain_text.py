"""What people write is kept as they see it: nothing unseen in it, one kind of line end; and it says something."""

from __future__ import annotations

import re
import typing
import unicodedata
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pkgutil import walk_packages
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.plain_text import cleaned, counted, plain
from core.sheets.bounds import Bounds
from core.sheets.reading import RawSheet
from core.sheets.table import SheetColumn, SheetTable
from core.sheets.table import text as cell_text
from handlers.models import AtLeast, Body, PlainText, WordsSought

TRICKY = "ab1垃圾 ，。\t\n\r\x85\u2028\u00ad\u200b\u200d\u202e\u2066\u3164\ufe0f\U000e0100\ufeff❤👨👩🏻葛¨"
UNSEEN = [
    pytest.param(text, id=name)
    for name, text in {
        "zero width": "\u200b" * 5,
        "hangul filler": "\u3164" * 5,
        "other fillers": "\u115f\u1160\uffa0\u17b4\u034f",
        "soft hyphens": "\u00ad" * 5,
        "directions": "\u202a\u202e\u2066\u2069\u061c",
        "joiners": "\u200d\u200c\u2060\ufeff\u180e",
        "variations": "\ufe0f\ufe00\U000e0100\u180b\ufe0e",
        "tags": "\U000e0041\U000e0042\U000e007f",
        "blanks between": "\u200b \u3000 \u00a0 \u200b",
    }.items()
]


@pytest.mark.parametrize("text", UNSEEN)
def test_what_is_not_seen_is_no_text(text):
    assert plain(text) == ""
    assert (
        plain(f"{text}垃圾{text}清运{text}").replace(" ", "").replace("\u3000", "").replace("\u00a0", "") == "垃圾清运"
    )


@pytest.mark.parametrize(
    "text", ["？？？？？", "……", " - ", "，。、！", "\u2800" * 5, "￥%&*", "　　　　　", "\ufffd\ufffd"]
)
def test_signs_alone_are_no_text(text):
    assert plain(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("垃圾", "路灯坏了！", "3-2-1", "①号楼", "ئەخلەت", "é", "ひらがな", "👍", "☎", "🏻", "💯💯"),
        *(
            "👨\u200d👩\u200d👧",
            "❤\ufe0f\u200d🔥",
            "🏃🏻\u200d♀\ufe0f",
            "1\ufe0f\u20e3",
            "葛\U000e0100先生",
            "两行\n字\t完",
        ),
    ],
)
def test_letters_digits_and_emoji_stay_as_they_are(text):
    assert plain(text) == text


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028", "\u2029", "\n"])
def test_every_kind_of_line_end_becomes_one(end):
    assert plain(f"第一行{end}第二行{end}") == "第一行\n第二行"


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x7f", "\x80", "\x9f", "\ud800"])
def test_control_characters_are_refused(control):
    with pytest.raises(ValueError, match="不可见的控制字符"):
        plain(f"垃圾{control}清运")


@given(st.text(st.one_of(st.sampled_from(TRICKY), st.characters()), max_size=30))
def test_what_is_left_is_seen_and_is_left_the_second_time_too(text):
    try:
        left = cleaned(text)
    except ValueError:
        return
    assert cleaned(left) == left
    assert left == left.strip()
    assert not [c for c in left if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert not [c for c in left if unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI"}]
    assert counted(left) == counted(text), "nothing that counts has gone, and nothing unseen counts"


def test_a_least_length_counts_what_is_said():
    field: TypeAdapter[str] = TypeAdapter(Annotated[PlainText, AtLeast(5)])
    assert field.json_schema()["minLength"] == 5
    assert field.validate_python("路灯不亮了。") == "路灯不亮了。"
    for text in ("路灯。。。", "路\u3164\u3164\u3164\u3164\u3164", "路　　　　灯"):
        with pytest.raises(ValidationError) as refused:
            field.validate_python(text)
        assert refused.value.errors()[0]["ctx"] == {"min_length": 5}


def test_a_cell_of_a_sheet_is_read_alike():
    needed, free = cell_text(5, 50, one_line=False), cell_text(most=50)
    assert needed("路灯不亮\r\n很\u202e黑\u3164") == "路灯不亮\n很黑"
    assert free("——") == ""
    with pytest.raises(ValueError, match="不能为空"):
        needed("\u3164\u200b\u00ad\u3164\u3164")
    with pytest.raises(ValueError, match="应为 5 到 50 个字"):
        needed("路灯。。。")
    with pytest.raises(ValueError, match="控制字符"):
        free("路灯\x00")


def test_a_column_in_which_nothing_is_seen_contradicts_no_other():
    columns = (SheetColumn("street", ("属地街道", "街道"), cell_text(), needed=True),)
    rows = [(1, ["属地街道", "街道"]), (2, ["\u200b\u3164", "东风街"]), (3, ["\ufeff东风街", ""])]
    sheet = RawSheet("一", False, len(rows), 0, BytesIO(b"\n".join(map(orjson.dumps, rows))))
    found = SheetTable(columns, Bounds(1000, 1000, 100, 100)).find([sheet])
    assert [(line.values["street"], line.problems) for line in found.lines] == [("东风街", [])] * 2


# Looked up as they are, compared with what we made, or kept from everybody: nobody reads them.
NOT_READ = (
    *("page", "category", "unit", "co_units", "condition", "assignee", "channel", "role", "camera", "standard"),
    *("password", "present", "wanted", "api_key", "jurisdiction_id", "address_id", "service_code", "template_ids"),
    *("subject", "object_kind", "object_id", "action", "service_request_id", "start_date", "end_date", "status"),
    *("signature", "timestamp", "nonce", "echostr", "encrypt_type", "msg_signature"),
    *("fields", "answers", "attribute"),  # the keys; the answers themselves are texts
)

# A pattern that names all that it takes, or a list of what is known.
OF_A_FORM = re.compile(r"pattern='(?:(?!\[\^|\\S|\.[*+{]).)*'|One of: |<function _known")


def bodies(model: type[Body] = Body) -> Iterator[type[Body]]:
    for each in model.__subclasses__():
        yield each
        yield from bodies(each)


def texts(of: Any, about: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """What is said of each text within a type: its metadata."""
    if typing.get_origin(of) is Annotated:
        inner, *said = typing.get_args(of)
        yield from texts(inner, (*about, *said))
    elif of is str:
        yield about
    elif typing.get_origin(of) is not typing.Literal:
        inside = about if type(None) in typing.get_args(of) else ()
        for part in typing.get_args(of):
            yield from texts(part, inside)


def test_every_text_that_a_request_brings_passes_the_same_way_or_is_of_a_form():
    for package in ("admin", "handlers", "miniprogram_api"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    plainly = {*next(texts(PlainText)), *next(texts(WordsSought))}
    unguarded = {
        f"{model.__module__}.{model.__name__}.{name}"
        for model in bodies()
        if model.__module__.startswith(("admin", "handlers", "miniprogram_api"))
        for name, hint in typing.get_type_hints(model, include_extras=True).items()
        for about in texts(hint)
        if name not in NOT_READ and plainly.isdisjoint(about) and not OF_A_FORM.search(repr(about))
    }
    # The text in which a mark is looked for has to keep it; the label is one of a list.
    assert unguarded <= {"admin.reports.exports.TraceBody.text", "admin.reports.snapshots.Rejection.label"}, unguarded

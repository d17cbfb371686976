"""The forms of values in subscribe messages."""

from datetime import UTC, datetime

import pytest

from core.wechat import fit

MOMENT = datetime(2026, 3, 8, 16, 5, tzinfo=UTC)  # 00:05 on the 9th in Shanghai


def test_a_thing_of_twenty_characters_stays_whole():
    assert fit("thing1", "路" * 20) == "路" * 20


def test_a_longer_thing_is_cut_to_twenty_characters_with_an_ellipsis():
    assert fit("thing1", "路" * 21) == "路" * 19 + "…"


def test_line_breaks_in_a_thing_become_blanks():
    assert fit("thing", " 井盖缺失\n\n东侧\t路口 ") == "井盖缺失 东侧 路口"


@pytest.mark.parametrize("blank", ["", " \n "])
def test_an_empty_thing_is_refused(blank):
    with pytest.raises(ValueError, match="empty"):
        fit("thing1", blank)


def test_moments_are_written_as_shanghai_reads_them():
    assert fit("time2", MOMENT) == "2026年3月9日 00:05"
    assert fit("date3", MOMENT) == "2026年3月9日"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("character_string1", "A" * 32),
        ("phrase1", "处理中"),
        ("number1", "-12.5"),
        ("time1", "15:01"),
        ("time1", "2019年10月1日 15:01"),
        ("date1", "2019-10-01"),
        ("amount1", "¥12.30"),
        ("amount1", "12元"),
        ("phone_number1", "+86-0766-66888866"),
        ("car_number1", "粤A8Z888挂"),
        ("name1", "张三"),
        ("name1", "Ada Lovelace"),
    ],
)
def test_a_value_in_form_is_given_as_it_is(kind, value):
    assert fit(kind, value) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("character_string1", "A" * 33),
        ("character_string1", "编号1"),
        ("phrase1", "正在处理之中"),
        ("phrase1", "done"),
        ("number1", "1" * 33),
        ("number1", "十二"),
        ("time1", "下午三点"),
        ("date1", "2019-10/01"),
        ("amount1", "12.30美元"),
        ("phone_number1", "1" * 18),
        ("name1", "张" * 11),
        ("name1", "张3"),
        ("thang1", "x"),
    ],
)
def test_a_value_out_of_form_is_refused_rather_than_falsified(kind, value):
    with pytest.raises(ValueError, match=r"form|kind"):
        fit(kind, value)


def test_the_refusal_does_not_repeat_the_value():
    with pytest.raises(ValueError, match="form") as refusal:
        fit("phone_number1", "13800138000转接八")
    assert "13800138000" not in str(refusal.value)

"""What `reports/data/categories.yaml` promises to the mini-program, to intake and to the clock."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from worktime.limits import Limit

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES: list[dict[str, Any]] = yaml.safe_load((ROOT / "reports/data/categories.yaml").read_text("utf-8"))[
    "categories"
]
CATALOGUE = ROOT.parent / "shared/domain/category-catalogue.csv"
STANDARD = "GB/T 47678.5-2026"

each_category = pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category["key"])


def unique(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


def condition_for(category: dict[str, Any], answers: dict[str, Any]) -> Any:
    """The rule that the file's header states."""
    for condition in category["conditions"]:
        when = condition.get("when")
        if when and answers.get(when["question"]) == when["equals"]:
            return condition
    return category["conditions"][0]


def test_a_citizen_chooses_from_the_known_dozen_and_other_comes_last():
    names = [category["name"] for category in sorted(CATEGORIES, key=lambda category: category["order"])]
    assert " ".join(names) == (
        "暴露垃圾 垃圾桶满溢 道路破损 井盖问题 违规停车 流动摊贩 店外经营 小广告/违规招牌 "
        "积水 绿化损坏 建筑垃圾 路灯设施损坏 其他"
    )
    for field in ("key", "icon", "order"):
        assert unique([category[field] for category in CATEGORIES])


@each_category
def test_a_category_has_its_fields_and_no_others(category):
    assert set(category) == {"key", "name", "icon", "order", "hint", "codes", "questions", "conditions"}
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", category["key"])
    assert 10 <= len(category["hint"]) <= 40
    assert "\n" not in category["hint"]


@each_category
def test_codes_are_quoted_five_digits_of_a_standard_or_local(category):
    assert category["codes"]
    assert unique([(code["standard_ref"], code["kind"], code["code"]) for code in category["codes"]])
    for code in category["codes"]:
        assert set(code) == {"standard_ref", "kind", "code", "name"}
        assert code["standard_ref"] in {STANDARD, "local"}
        assert code["kind"] in {"部件", "事项"}
        assert isinstance(code["code"], str)
        assert re.fullmatch(r"\d{5}", code["code"])


def test_local_codes_are_each_used_once():
    assert unique(
        [code["code"] for category in CATEGORIES for code in category["codes"] if code["standard_ref"] == "local"]
    )


@pytest.mark.skipif(not CATALOGUE.exists(), reason="the catalogue to compare with is not on this machine")
def test_codes_and_names_are_those_of_the_catalogue():
    with CATALOGUE.open(encoding="utf-8-sig", newline="") as file:
        known = {
            (row["standard"], row["kind"].removeprefix("管理"), row["code"], row["name"])
            for row in csv.DictReader(file)
        }
    ours = {
        (code["standard_ref"], code["kind"], code["code"], code["name"])
        for category in CATEGORIES
        for code in category["codes"]
        if code["standard_ref"] != "local"
    }
    assert len(ours) > 80
    assert ours <= known


@each_category
def test_a_citizen_is_asked_at_most_three_questions_that_can_be_answered(category):
    assert len(category["questions"]) <= 3
    assert unique([question["key"] for question in category["questions"]])
    for question in category["questions"]:
        assert set(question) <= {"key", "text", "kind", "options", "required"}
        assert question["text"].strip()
        assert question.get("required", False) in {True, False}
        assert question["kind"] in {"choice", "text", "yes_no"}
        assert ("options" in question) == (question["kind"] == "choice")
        assert unique(question.get("options", []))
        assert all(isinstance(option, str) for option in question.get("options", []))


@each_category
def test_every_condition_says_when_a_case_is_filed_when_it_closes_and_how_long_it_has(category):
    assert unique([condition["key"] for condition in category["conditions"]])
    for condition in category["conditions"]:
        assert set(condition) - {"when"} == {"key", "text", "closing_condition", "limit"}
        assert condition["text"].strip()
        assert condition["closing_condition"].strip()
        Limit.model_validate(condition["limit"])


@each_category
def test_a_condition_that_depends_on_an_answer_can_be_reached_by_it(category):
    questions = {question["key"]: question for question in category["questions"]}
    for condition in category["conditions"]:
        if "when" not in condition:
            continue
        assert set(condition["when"]) == {"question", "equals"}
        question, equals = questions[condition["when"]["question"]], condition["when"]["equals"]
        # Unquoted, YAML reads yes as a truth value.
        assert equals in (["yes", "no"] if question["kind"] == "yes_no" else question["options"])
        assert condition_for(category, {question["key"]: equals}) is condition


@pytest.mark.parametrize(
    ("category", "answers", "limit"),
    [
        ("manhole", {"fall_danger": "no", "state": "丢失或移位"}, (2, "urgent_hour")),
        ("manhole", {"fall_danger": "yes", "state": "破损、开裂"}, (2, "urgent_hour")),
        ("manhole", {"fall_danger": "no", "state": "破损、开裂"}, (4, "work_hour")),
        ("manhole", {"fall_danger": "no", "state": "松动、弹跳、有响声"}, (2, "work_day")),
        ("manhole", {}, (2, "urgent_hour")),
        ("exposed_garbage", {}, (4, "work_hour")),
        ("road_damage", {"where": "人行道地砖", "collapse": "yes"}, (2, "urgent_hour")),
        ("road_damage", {"where": "人行道地砖", "collapse": "no"}, (7, "work_day")),
        ("waterlogging", {"kind": "桥面积水", "impassable": "yes"}, (2, "urgent_hour")),
        ("street_light", {"state": "破损、缺件、电线外露"}, (1, "work_day")),
        ("other", {"danger": "no"}, (5, "work_day")),
    ],
)
def test_the_citizens_answers_select_the_time_limit(category, answers, limit):
    found = next(each for each in CATEGORIES if each["key"] == category)
    assert tuple(condition_for(found, answers)["limit"].values()) == limit


@pytest.mark.parametrize("file", ["cases.yaml", "district.yaml"])
def test_the_demo_holds_nothing_that_looks_like_a_persons_data(file):
    everything = (ROOT / "server/demo/data" / file).read_text("utf-8")
    assert not re.search(r"1[3-9]\d{9}|\d{17}[\dXx]|[\w.]+@[\w.]+|[\u4e00-\u9fff][A-Z][A-Z0-9]{5}", everything)

"""Which topic a report belongs to: the same words and places together, others apart, and always the same outcome."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from reports.topics.keeper import stage_of
from reports.topics.model import QUIET_DAYS, Item, Topic, TopicModel, Vocabulary, title_of

_DAY = datetime(2026, 11, 1, 8, tzinfo=UTC)
SUBJECTS = {
    "noise": "金港河边的工地深夜施工扰民，居民没法睡觉",
    "light": "学府路两旁的路灯全都不亮，晚上走路看不见",
    "smell": "梅峰河河水发黑发臭，味道飘进小区",
    "bins": "菜市场门口的垃圾桶满了没人清运，苍蝇很多",
    "hole": "建设大道路面塌陷有个大坑，车辆绕行",
}
_MORE = ("请尽快处理", "已经好几天了", "希望有关部门重视", "之前反映过没有人管", "麻烦你们了", "谢谢")
_LEADS = ("您好，", "我想反映一下，", "", "今天又看到", "我们这里", "尊敬的领导您好：")


def crowd(seed: int, count: int = 150) -> list[tuple[str, Item]]:
    """Reports of five subjects, each in its own place, in different words around the same core."""
    rng = random.Random(seed)
    found = []
    for n in range(count):
        subject = rng.choice(list(SUBJECTS))
        east = list(SUBJECTS).index(subject) * 0.02
        text = rng.choice(_LEADS) + SUBJECTS[subject] + "，" + "，".join(rng.sample(_MORE, 2))
        at = _DAY + timedelta(hours=n)
        item = Item(f"99010120261101{n:06d}", at, text, "other", 113.2 + east + rng.gauss(0, 0.001), 23.1)
        found.append((subject, item))
    return found


def assigned(items: list[Item], model: TopicModel | None = None) -> list[str]:
    model = model or TopicModel(Vocabulary.of(item.text for item in items))
    return [model.assign(item)[0].id for item in items]


def test_reports_of_one_thing_come_together_and_of_another_do_not():
    labelled = crowd(1)
    topics = assigned([item for _, item in labelled])
    of_subject = {s: {t for (label, _), t in zip(labelled, topics, strict=True) if label == s} for s in SUBJECTS}
    assert all(len(found) == 1 for found in of_subject.values()), of_subject
    assert len(set(topics)) == len(SUBJECTS)


def test_before_there_is_a_vocabulary_the_same_words_still_come_together():
    items = [item for subject, item in crowd(2, 40) if subject in ("noise", "bins")]
    assert len(set(assigned(items, TopicModel(Vocabulary())))) == 2


def test_a_model_read_back_in_the_middle_goes_on_as_if_it_had_never_stopped():
    items = [item for _, item in crowd(3)]
    vocabulary = Vocabulary.of(item.text for item in items)
    whole, first = TopicModel(vocabulary), TopicModel(vocabulary)
    uninterrupted = assigned(items, whole)
    begun = assigned(items[:70], first)
    stored = [topic.stored() for topic in first.topics.values()]
    again = Vocabulary(vocabulary.documents, vocabulary.packed())
    resumed = TopicModel(again, [Topic.of(s) for s in reversed(stored)])
    assert begun + assigned(items[70:], resumed) == uninterrupted
    assert {t.id: t.stored() for t in resumed.topics.values()} == {t.id: t.stored() for t in whole.topics.values()}


def test_a_topic_ends_when_nothing_has_come_for_long_and_the_same_words_found_a_new_one():
    model = TopicModel(Vocabulary())
    one = Item("1", _DAY, SUBJECTS["noise"], None, 113.2, 23.1)
    late = Item("2", _DAY + timedelta(days=QUIET_DAYS, hours=1), SUBJECTS["noise"], None, 113.2, 23.1)
    assert assigned([one, late], model) == ["1", "2"]
    assert model.let_go(late.at - timedelta(days=1)) == ["1"]
    assert list(model.topics) == ["2"]


def test_words_that_are_half_alike_join_at_the_place_and_of_the_category_only():
    words = SUBJECTS["noise"][:10] + "，打桩机一直响，孩子要高考，希望管一管"

    def likeness(category: str, longitude: float) -> float:
        model = TopicModel(Vocabulary())
        model.assign(Item("1", _DAY, SUBJECTS["noise"], "noise", 113.2, 23.1))
        return model.likest(Item("2", _DAY, words, category, longitude, 23.1))[1]

    assert likeness("noise", 113.2) > likeness("noise", 113.3) > likeness("light", 113.3)
    assert likeness("noise", 113.2) > likeness("light", 113.2)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("尊敬的领导您好：我想反映金港河边的工地深夜施工扰民，请尽快处理", "金港河边的工地深夜施工扰民，请尽快处理"),
        ("电话13800138000，路灯不亮", "电话*，路灯不亮"),
        ("已经22:30了还在施工噪音很大", "已经22:30了还在施工噪音很大"),
        ("坑", "坑"),
    ],
)
def test_a_title_is_a_readable_part_of_the_words_without_the_courtesies(text, title):
    assert title_of(text, Vocabulary().vector(text)) == title


def test_words_that_everybody_uses_tell_nothing():
    vocabulary = Vocabulary.of(["请尽快处理" + SUBJECTS[s] for s in SUBJECTS] * 20)
    assert vocabulary.vector("请尽快处理") == {}


def test_the_vocabulary_changes_at_the_same_numbers_for_everyone():
    assert [stage_of(n) for n in (0, 63, 64, 127, 128, 16_383, 16_384, 32_767, 32_768, 600_000)] == [
        0, 0, 64, 64, 128, 8192, 16_384, 16_384, 32_768, 589_824
    ]  # fmt: skip

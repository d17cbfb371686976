"""What messages are about, judged by the weights that are delivered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference.model_files import MODELS
from inference.predictions import TASKS
from inference.text_input import code_points, learnt_form
from inference.texts import TextClassifier
from tests.inference.citizens_words import WORDS
from tests.inference.support import inference, lines, messages, needs_texts
from tests.timing import within


@pytest.fixture(scope="module")
def texts():
    return TextClassifier()


def chances(judged):
    return np.array([list(each.scores.values()) for each in judged])


def calibration_error(judged, truth):
    """Expected calibration error over 15 bins, written anew: not the training program's."""
    error = 0.0
    for bin_ in range(15):
        inside = [j for j in range(len(judged)) if bin_ / 15 <= judged[j].confidence < (bin_ + 1) / 15 + (bin_ == 14)]
        if inside:
            sure = sum(judged[j].confidence for j in inside)
            right = sum(judged[j].label == truth[j] for j in inside)
            error += abs(sure - right) / len(judged)
    return error


def test_the_graph_gives_what_the_training_library_gave(texts):
    reference = json.loads((MODELS / "texts-reference.json").read_text(encoding="utf-8"))
    for task in TASKS:
        judged = texts.classify(task, [(each["title"], each["text"]) for each in reference])
        expected = [[each[task][label] for label in texts.labels[task]] for each in reference]
        assert np.abs(chances(judged) - expected).max() < 0.005  # weights are kept in half precision


def test_plain_words_find_the_citizens_category(texts):
    judged = texts.classify("category", [("", text) for text, _ in WORDS])
    wrong = [(text, each.label) for (text, truth), each in zip(WORDS, judged, strict=True) if each.label != truth]
    assert len(wrong) <= len(WORDS) * 0.2, wrong


@pytest.mark.parametrize(
    ("text", "government"),
    [
        ("学校违规补课乱收费，教育局管不管", "教育文体"),
        ("公司拖欠工资三个月，没有买社保", "劳动和社会保障"),
        ("工厂排放废气，气味刺鼻，污染严重", "环境保护"),
        ("医院看病难，医生态度差，医保报销", "卫生计生"),
    ],
)
def test_words_find_the_class_of_government(texts, text, government):
    assert texts.classify("government", [("", text)])[0].label == government


def test_scores_are_probabilities_of_every_label(texts):
    for task in TASKS:
        (judged,) = texts.classify(task, [("路灯坏了", "")])
        assert set(judged.scores) == set(texts.labels[task])
        assert sum(judged.scores.values()) == pytest.approx(1, abs=1e-4)
        assert judged.confidence == max(judged.scores.values()) == judged.scores[judged.label]
        assert judged.model.startswith("texts-")


def test_a_batch_is_answered_as_each_message_alone(texts):
    batch = [("", ""), ("路灯", "不亮"), ("", "垃圾" * 3000), ("井盖", "没了")] * 20
    together = texts.classify("category", batch)
    alone = [texts.classify("category", [message])[0] for message in batch]
    assert np.abs(chances(together) - chances(alone)).max() < 1e-4
    assert texts.classify("category", []) == []


ODD = {
    "nothing": "",
    "spaces": " \t\n" * 500,
    "ten thousand characters": "路灯不亮，" * 2000,
    "emoji": "😀🏮👩‍👩‍👧‍👦" * 300,
    "control characters": "".join(map(chr, range(32))) * 50 + "\u202e\u200b\ufeff",
    "half of a surrogate pair": "井\ud83d盖",
    "traditional characters": "路燈壞了，馬路上的井蓋丟失，請儘快處理",
    "English": "The street light in front of our house has been broken for two weeks.",
    "Uyghur": "كوچا چىرىغى بۇزۇلدى",
    "ligatures that grow eighteenfold": "ﷺ" * 100_000,
    "combining marks": "a" + "\u0301" * 50_000,
}


ODD_LINES = {kind: text for kind, text in ODD.items() if "\ud83d" not in text}
"""Those that can be said in UTF-8; a test of its own is about half a pair."""


@pytest.mark.parametrize("kind", ODD)
def test_any_text_is_answered_in_bounded_time(texts, kind):
    with within(100):
        for task in TASKS:
            (judged,) = texts.classify(task, [(ODD[kind][:500], ODD[kind])])
            assert np.isfinite(judged.confidence)
            assert sum(judged.scores.values()) == pytest.approx(1, abs=1e-4)


def test_traditional_characters_are_read_as_simplified_ones(texts):
    for traditional, simplified in (
        ("路燈壞了，馬路上的井蓋丟失，請儘快處理", "路灯坏了，马路上的井盖丢失，请尽快处理"),
        ("垃圾桶滿了沒人收", "垃圾桶满了没人收"),
        ("攤販佔道經營", "摊贩占道经营"),
    ):
        assert learnt_form(traditional, traditional) == learnt_form(simplified, simplified)
        judged = texts.classify("category", [("", traditional), ("", simplified)])
        assert judged[0].scores == judged[1].scores


@pytest.mark.parametrize(
    ("text", "department"),
    [
        ("公交车等了四十分钟才来，请增加班次", "交通运输(含公交地铁)"),
        ("工地拖欠农民工工资，社保也没有买", "人社医保"),
        ("开发商延期交房，房产证办不下来", "住建房产规划"),
        ("路口红绿灯坏了，交警没人管", "公安交警"),
        ("卫生院打预防针的医生态度很差", "卫健"),
        ("景区门票太贵，导游强迫购物", "商务文旅"),
        ("夜宵摊占道经营，城管不管", "城管"),
        ("超市卖过期食品，店家不退款", "市场监管"),
        ("自来水停了三天，水压也不够", "市政园林公用(水电气)"),
        ("小学学区划分不合理，入学难", "教育"),
        ("村里低保户和贫困户的评定不公平", "民政农业水利林业"),
        ("化工厂偷排废气，刺鼻难闻", "生态环境"),
    ],
)
def test_words_find_the_department(texts, text, department):
    assert texts.classify("department", [("", text)])[0].label == department


def test_a_text_without_chinese_gets_no_confident_answer(texts):
    (english,) = texts.classify("government", [("", ODD["English"])])
    (nothing,) = texts.classify("government", [("", "")])
    assert english.scores == nothing.scores
    assert english.confidence < 0.6


def test_only_the_beginning_of_a_long_text_is_read():
    assert learnt_form("题", "字" * 10_000) == learnt_form("题", "字" * 2_000)
    assert code_points([("", "路灯"), ("", "路")]).tolist() == [[32, 32, 32, 0x8DEF, 0x706F], [32, 32, 32, 0x8DEF, 0]]


def test_the_command_line_answers_in_order_and_goes_on_after_a_bad_line():
    status, answers, _ = inference(
        "texts",
        "--task",
        "category",
        given=lines({"id": 1, "title": "路灯", "text": "不亮"}) + b"{\n[1]\n\n" + lines({"id": "b", "title": None}),
    )
    assert status == 1
    assert [answer["id"] for answer in answers] == [1, None, None, "b"]
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert set(answers[0]) == {"id", "label", "confidence", "scores"}


def test_the_command_line_answers_every_odd_text():
    status, answers, complaint = inference(
        "texts", "--task", "category", given=lines(*({"id": kind, "text": text} for kind, text in ODD_LINES.items()))
    )
    assert (status, complaint) == (0, "")
    assert [answer["id"] for answer in answers] == list(ODD_LINES)
    assert all(set(answer) == {"id", "label", "confidence", "scores"} for answer in answers)


BAD_LINES = {
    b'{"id": NaN}': (None, "JSON"),
    b'{"id": 1e999}': (None, "id"),
    b'{"id": {"a": 1}, "text": ""}': (None, "id"),
    b'{"id": 1, "text": 0}': (1, "strings"),
    b'{"id": 2, "text": ["a"]}': (2, "strings"),
    b'{"id": 3, "text": "' + b"x" * 100_001 + b'"}': (3, "100000"),
    b"x" * 10_000_000: (None, "4194304"),
    b"[" * 100_000: (None, "JSON"),
    b'{"id": 4, "text": "\xe8\xb7"}': (None, "JSON"),
    b"\x00\x00": (None, "JSON"),
    b"null": (None, "object"),
}


def test_the_command_line_says_what_is_wrong_with_a_line():
    status, answers, complaint = inference("texts", "--task", "government", given=b"\n".join(BAD_LINES))
    assert (status, complaint) == (1, "")
    for answer, (id_, reason) in zip(answers, BAD_LINES.values(), strict=True):
        assert answer["id"] == id_
        assert reason in answer["error"]


def test_the_command_line_gives_back_an_id_that_is_half_a_surrogate_pair():
    status, answers, _ = inference("texts", "--task", "category", given=b'{"id": "\\ud83d", "text": ""}')
    assert (status, answers[0]["id"]) == (0, "\ud83d")


def test_the_command_line_takes_nothing_for_nothing():
    assert inference("texts", "--task", "department") == (0, [], "")


@needs_texts
def test_seven_classes_of_real_messages():
    val = messages("val")
    judged = TextClassifier().classify("government", [(each["title"], each["text"]) for each in val])
    truth = [each["label"] for each in val]
    assert np.mean([a.label == b for a, b in zip(judged, truth, strict=True)]) > 0.9
    assert calibration_error(judged, truth) < 0.06

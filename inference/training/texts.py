"""``python -m inference.training texts DATA``: the three text classifiers, their figures, and one graph of them all.

Every classifier ends as one linear layer over the same terms. What is known without a message goes in as messages of a
few characters: phrases that name a department, the catalogue's wording of the citizen's categories.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from rich.console import Console
from rich.progress import track
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from inference.model_files import MODELS
from inference.text_input import learnt_form
from inference.training.figures import fitted_temperature, softmax
from inference.training.keyword_teacher import PHRASES, phrases_of, taught
from inference.training.layers import Layer, Matrix, by_folds, calibrated, figures, fit
from inference.training.spoken import spoken
from inference.training.text_graph import text_graph

TERMS = 80_000
SEED = 7
REPEATS = 3
"""How often the messages are divided anew for the departments' cross-validation."""
PHRASE_SHARE = 2.0
"""How many messages a phrase that names a department counts for."""
DOUBTS = {"government": 0.01, "department": 0.15, "category": 0.02}
"""How much of its probability each classifier spreads evenly: about as often its labels themselves are wrong."""
_CATEGORIES = Path(__file__).parents[2] / "reports" / "data" / "categories.yaml"

REFERENCE = [
    ("", ""),
    ("路灯不亮", "桥东路的路灯坏了一个星期，晚上看不清路，请尽快派人修理。"),
    ("", "小区门口的垃圾桶满了，垃圾堆在路边没人清运，臭气很大！"),
    ("拖欠工资", "工地老板拖欠我们十几个农民工的工资，半年了还没有发，请劳动部门帮忙。"),
    ("孩子入学", "请问外来务工人员的子女上小学需要什么材料？学区怎么划分？"),
    ("公交车", "早高峰等了四十分钟才来一辆公交车，能不能增加班次？"),
    ("", "楼下的工厂夜里偷偷排放废气，气味刺鼻，窗户都不敢开。 123 abc 😀"),
    ("医院", "在医院看病，医生态度很差，医保也不给报销。"),
    ("", "垃圾" * 1500),
]
"""Made-up messages whose probabilities by the training library are kept, to hold the graph to them."""

DEPARTMENT_PHRASES = phrases_of("department_phrases.yaml")

GOVERNMENT_OF = {
    "交通运输(含公交地铁)": "交通运输",
    "人社医保": "劳动和社会保障",
    "住建房产规划": "城乡建设",
    "卫健": "卫生计生",
    "商务文旅": "商贸旅游",
    "城管": "城乡建设",
    "市场监管": "商贸旅游",
    "市政园林公用(水电气)": "城乡建设",
    "教育": "教育文体",
    "生态环境": "环境保护",
}
"""The class of the petition system that a kind of department answers for, where it is one of the seven."""


def _subjects(data: Path, classes: set[str]) -> list[tuple[str, str]]:
    """(class, what belongs to it): the petition system's own subjects, and the phrases that name departments."""
    named = {
        (line["level1"], line[level])
        for line in _read(data, "taxonomy_fj1")
        for level in ("level2", "level3")
        if line["level1"] in classes and line[level] not in (None, "", "其他")
    }
    phrases = [
        (GOVERNMENT_OF[department], phrase)
        for department, listed in DEPARTMENT_PHRASES.items()
        if department in GOVERNMENT_OF
        for phrase in listed
    ]
    return [*sorted(named), *phrases]


def _terms(messages: list[dict[str, Any]]) -> tuple[list[str], TfidfTransformer, Matrix]:
    """The terms that are looked at, their rarity, and the messages in them.

    Those of the catalogue and the teacher come first, then those in the most messages: a choice that knows no label.
    """
    counter = CountVectorizer(analyzer="char", ngram_range=(1, 3), min_df=4, dtype=np.float32)
    named, _ = _catalogue()
    named += [phrase for listed in (PHRASES, DEPARTMENT_PHRASES) for phrases in listed.values() for phrase in phrases]
    named_forms = [learnt_form("", text) for text in named]
    forms = _forms(messages)
    counts = counter.fit_transform([*forms, *named_forms * counter.min_df])[: len(forms)]
    teacher_terms = {term for form in named_forms for n in (1, 2, 3) for term in _grams(form, n)}
    every = counter.get_feature_names_out()
    common = np.diff(counts.tocsc().indptr) + np.array([10_000 if term in teacher_terms else 0 for term in every])
    kept = np.sort(np.argsort(-common, kind="stable")[:TERMS])
    idf = TfidfTransformer(sublinear_tf=True)
    return every[kept].tolist(), idf, idf.fit_transform(counts[:, kept])


def _read(data: Path, name: str) -> list[dict[str, Any]]:
    with (data / "texts" / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _forms(messages: list[dict[str, Any]]) -> list[str]:
    return [learnt_form(message["title"], message["text"]) for message in track(messages, "read messages")]


def _sentences(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Titles and sentences, as short as what people write on a phone."""
    found = []
    for message in messages:
        parts = [message["title"], *re.split(r"[。！？!?\n；;]", message["text"][:400])]
        found += [("", part.strip()) for part in parts if 6 <= len(part.strip()) <= 60]
    return found


def _catalogue() -> tuple[list[str], list[str]]:
    """The wording of the categories' names, hints, catalogue types and filing conditions, with their keys."""
    texts, keys = [], []
    for category in yaml.safe_load(_CATEGORIES.read_text(encoding="utf-8"))["categories"]:
        said = [category["name"], *re.split("[，。；、]", category["hint"])]
        said += [code["name"] for code in category["codes"]]
        said += [condition["text"] for condition in category["conditions"]]
        texts += said
        keys += [category["key"]] * len(said)
    return texts, keys


def train(data: Path, target: Path = MODELS) -> dict[str, Any]:
    """Train on the folder ``data``, write the graph and its entry into ``target``; returns the figures."""
    console = Console()
    train_set, val, extra = _read(data, "train"), _read(data, "val"), _read(data, "train_extra_seg")
    known, river = _read(data, "departments_train"), _read(data, "fuzhou_river_hotline")

    vocabulary, idf, everything = _terms([*train_set, *extra, *known, *river[::3]])
    chosen = CountVectorizer(analyzer="char", ngram_range=(1, 3), vocabulary=vocabulary, dtype=np.float32)

    def rows(forms: list[str]) -> Matrix:
        return idf.transform(chosen.transform(forms))

    ends = np.cumsum([len(train_set), len(extra), len(known)])
    x_train, x_extra, x_known = (everything[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True))
    x_val = rows(_forms(val))

    # Seven classes. The tokenised messages are in every training fold; figures are on raw messages alone.
    y_train, y_val, y_extra = ([message["label"] for message in messages] for messages in (train_set, val, extra))
    groups = [message["group"] for message in train_set]
    subjects = _subjects(data, set(y_train))
    x_subjects, y_subjects = rows([learnt_form("", text) for _, text in subjects]), [label for label, _ in subjects]

    def government_of(parts: list[Matrix], labels: list[str]) -> Layer:
        return fit(sparse.vstack([*parts, x_subjects]).tocsr(), labels + y_subjects, 0.3, 0.02)

    extra_groups = np.array([message["group"] for message in extra])

    def judge(seen: Any, unseen: Any) -> Any:
        apart = np.flatnonzero(~np.isin(extra_groups, [groups[i] for i in unseen]))
        known_labels = [y_train[i] for i in seen] + [y_extra[i] for i in apart]
        return government_of([x_train[seen], x_extra[apart]], known_labels).logits(x_train[unseen])

    folded = by_folds(groups, 3, SEED, judge)
    government = government_of([x_train, x_extra], y_train + y_extra)
    labels, doubt = government.labels, DOUBTS["government"]
    sharpness = fitted_temperature(folded, [labels.index(label) for label in y_train], doubt)
    measured: dict[str, Any] = {
        "government": {
            "cross_validation": figures(labels, calibrated(labels, folded, y_train, groups, doubt), y_train),
            "val": figures(labels, softmax(government.logits(x_val) * sharpness, doubt), y_val),
        }
    }
    console.print(measured)
    final_government = government_of([x_train, x_extra, x_val], y_train + y_extra + y_val).scaled(sharpness)

    # Twelve departments.
    y_known = [message["dept_weak"] for message in known]
    groups = [message["group"] for message in known]
    share = np.array([message["share"] for message in known])
    said = [(label, phrase) for label, phrases in DEPARTMENT_PHRASES.items() for phrase in phrases]
    x_said, y_said = rows([learnt_form("", phrase) for _, phrase in said]), [label for label, _ in said]

    def department_of(places: Any) -> Layer:
        return fit(
            sparse.vstack([x_known[places], x_said]).tocsr(),
            [y_known[i] for i in places] + y_said,
            0.15,
            0.15,
            np.concatenate([share[places], np.full(len(said), PHRASE_SHARE)]),
        )

    repeated = [
        by_folds(groups, 5, SEED + n, lambda seen, unseen: department_of(seen).logits(x_known[unseen]))
        for n in range(REPEATS)
    ]
    department, doubt = department_of(np.arange(len(known))), DOUBTS["department"]
    labels = department.labels
    sharpness = fitted_temperature(
        np.concatenate(repeated), [labels.index(label) for label in y_known] * REPEATS, doubt
    )
    chances = [calibrated(labels, each, y_known, groups, doubt) for each in repeated]
    measured["department"] = {"cross_validation": figures(labels, chances, y_known)}
    console.print(measured["department"])
    department = department.scaled(sharpness)

    category, measured["category"] = _category([*train_set, *known, *river, *extra], val, rows)
    console.print(measured["category"])

    layers = {"government": final_government, "department": department, "category": category}
    graph = text_graph(
        vocabulary, idf.idf_, {name: (layer.weights, layer.offsets) for name, layer in layers.items()}, DOUBTS
    )
    forms = [learnt_form(title, text) for title, text in REFERENCE]
    answers = {name: softmax(layer.logits(rows(forms)), DOUBTS[name]) for name, layer in layers.items()}
    reference = [
        {"title": title, "text": text}
        | {
            name: dict(zip(layer.labels, answers[name][place].round(6).tolist(), strict=True))
            for name, layer in layers.items()
        }
        for place, (title, text) in enumerate(REFERENCE)
    ]
    target.mkdir(parents=True, exist_ok=True)
    (target / "texts-reference.json").write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n", "utf-8")
    write(target, "texts", graph, {"labels": {name: layer.labels for name, layer in layers.items()}}, measured)
    return measured


def _category(
    written: list[dict[str, Any]], val: list[dict[str, Any]], rows: Callable[[list[str]], Matrix]
) -> tuple[Layer, dict[str, Any]]:
    """The citizen's categories, by the teacher: messages, their sentences, made-up ones and the catalogue's wording.

    Without a hand on the scale nine in ten would be ``other``: what these messages are about is mostly not the street.
    """
    catalogue, catalogue_keys = _catalogue()
    dice = np.random.default_rng(SEED)
    whole = [(message["title"], message["text"]) for message in written]
    taught_pairs = [(pair, taught(*pair)) for pair in [*whole, *_sentences(written)]]
    lessons = [(pair, label) for pair, label in taught_pairs if label != "other" or dice.random() < 0.06]
    made = spoken(5, 500, SEED)
    texts = [pair for pair, _ in lessons] + [("", text) for text, _ in made] + [("", text) for text in catalogue]
    labels = [label for _, label in lessons] + [label for _, label in made] + catalogue_keys
    counts = {label: labels.count(label) for label in set(labels)}
    evened = np.array([(len(labels) / len(counts) / counts[label]) ** 0.7 for label in labels])
    layer = fit(rows([learnt_form(*pair) for pair in texts]), labels, 0.3, 0.2, evened)

    held_back = [(pair, taught(*pair)) for pair in [(message["title"], message["text"]) for message in val]]
    held_back += [(pair, label) for pair in _sentences(val) if (label := taught(*pair)) != "other"]
    truth = [label for _, label in held_back]
    logits = layer.logits(rows([learnt_form(*pair) for pair, _ in held_back]))
    sharpness = fitted_temperature(logits, [layer.labels.index(label) for label in truth], DOUBTS["category"])
    named = [place for place, label in enumerate(truth) if label != "other"]
    doubt = DOUBTS["category"]
    groups = [sum(map(ord, title + text)) for (title, text), _ in held_back]
    chances = calibrated(layer.labels, logits, truth, groups, doubt)
    return layer.scaled(sharpness), {
        "agreement_with_teacher": figures(layer.labels, chances, truth),
        "agreement_where_teacher_names_one": figures(layer.labels, chances[named], [truth[place] for place in named]),
    }


def _grams(form: str, length: int) -> list[str]:
    return [form[i : i + length] for i in range(len(form) - length + 1)]


def write(target: Path, kind: str, graph: onnx.ModelProto, about: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write the graph, and its entry in ``models.json``."""
    target.mkdir(parents=True, exist_ok=True)
    weights = graph.SerializeToString()
    file = target / f"{kind}.onnx"
    file.write_bytes(weights)
    listing = target / "models.json"
    entries = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else {}
    entries[kind] = {"file": file.name, "sha256": hashlib.sha256(weights).hexdigest(), **about, "figures": figures}
    listing.write_text(json.dumps(entries, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

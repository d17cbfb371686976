"""Making candidates from labels, and comparing them with the model in force."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clock import now
from core.errors import Invalid
from inference.comparison import compared
from inference.correction import photo_features, text_features
from inference.examples import Example, Examples, Task, divided, place_of
from inference.fitting import FOLDS, PENALTIES, chosen_penalty, common_grams, fitted
from inference.model_store import OWN, ModelStore
from inference.photo_input import pixels
from inference.photos import PhotoClassifier
from inference.promotions import Promotions
from inference.text_input import code_points
from inference.texts import TextClassifier

LEAST_LABELS = 20
"""Fewer labels than this teach nothing."""
_SOME = 32
_KIND: dict[Task, str] = {"category": "texts", "photos": "photos"}

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


class Candidates:
    """Trains and compares. ``threshold``: the probability from which on reports are filed without a person."""

    def __init__(self, store: ModelStore, promotions: Promotions, examples: Examples, *, threshold: float) -> None:
        self._store = store
        self._promotions = promotions
        self._examples = examples
        self._threshold = threshold

    async def train(self, task: Task, *, by: Mapping[str, str], seed: int, progress: Progress) -> dict[str, Any]:
        """Make a candidate from the labels there are; how it was trained.

        It corrects the product's own weights, whatever was promoted before: every label is learnt from anew. The same
        labels and seed give the same candidate. Raises :class:`Invalid` (``TOO_FEW_LABELS``).
        """
        present = await self._promotions.present()
        judge = _judge(task, self._store.verified(None))
        examples = await self._examples.read(
            task, judge.labels, progress=lambda done, total: progress("reading labels", done, total)
        )
        learnt, kept = divided(examples)
        if len(learnt) < LEAST_LABELS:
            raise Invalid(f"可学习的标注只有 {len(learnt)} 条，至少需要 {LEAST_LABELS} 条。", code="TOO_FEW_LABELS")
        about = await asyncio.to_thread(self._fit, task, judge, learnt, present, seed, progress)
        mix = Counter(e.label for e in learnt)
        listed = {
            "task": task,
            "at": now().isoformat(),
            "by": dict(by),
            "parent": present or OWN,
            "base": about["base"],
            "seed": seed,
            "learnt": len(learnt),
            "held_out": len(kept),
            "labels_sha256": hashlib.sha256("\n".join(f"{e.label_id}={e.label}" for e in learnt).encode()).hexdigest(),
            "mix": dict(sorted(mix.items())),
            "penalty": about["penalty"],
            "losses": about["losses"],
            "grams": about["grams"],
        }
        model_id = self._store.add(
            base=_KIND[task], beside=present, trained={_KIND[task]: {task: about["packed"]}}, about=listed
        )
        return self._store.about(model_id)

    def _fit(
        self, task: Task, judge: _Judge, learnt: Sequence[Example], present: str | None, seed: int, progress: Progress
    ) -> dict[str, Any]:
        chances, rows = judge.seen([e.content for e in learnt], lambda d, t: progress("judging what is learnt", d, t))
        target = np.array([judge.labels.index(e.label) for e in learnt])
        folds = np.array([place_of(f"fold-{seed}", e.group) % FOLDS for e in learnt])
        grams = common_grams(rows) if task == "category" else np.empty(0, np.int64)
        features = judge.features(chances, rows, grams)
        total, tried = len(PENALTIES) * len(np.unique(folds)) + 1, 0

        def told() -> None:
            nonlocal tried
            tried += 1
            progress("fitting", tried, total)

        penalty, losses = chosen_penalty(chances, features, target, folds, told=told)
        correction = fitted(chances, features, target, penalty=penalty, grams=grams)
        told()
        return {
            "packed": correction.packed(),
            "penalty": penalty,
            "losses": losses,
            "grams": len(grams),
            "base": judge.name,
        }

    async def evaluate(self, candidate: str, *, by: Mapping[str, str], progress: Progress) -> dict[str, Any]:
        """Compare ``candidate`` with the model in force on what is held out, and keep the figures."""
        task: Task = self._store.about(candidate)["task"]
        present = await self._promotions.present()
        before, after = (_judge(task, self._store.verified(model)) for model in (present, candidate))
        if before.labels != after.labels:
            raise Invalid("两个模型识别的类别不同，无法比较。", code="OTHER_LABELS")
        examples = await self._examples.read(
            task, before.labels, progress=lambda done, total: progress("reading labels", done, total)
        )
        _, kept = divided(examples)

        def both() -> dict[str, Any]:
            target = np.array([before.labels.index(e.label) for e in kept], np.int64)
            contents = [e.content for e in kept]
            found = [judge.answers(contents, lambda d, t: progress("judging what was held out", d, t))
                     for judge in (before, after)]  # fmt: skip
            return compared(before.labels, target, *found, threshold=self._threshold)

        figures = await asyncio.to_thread(both)
        figures |= {"candidate_id": candidate, "present_id": present or OWN, "task": task}
        figures["evaluation"] = await self._promotions.evaluated(candidate, present, figures, by=by)
        return figures


class _Judge:
    """One task's classifier, as training and comparing need it."""

    labels: tuple[str, ...]
    name: str

    def answers(self, contents: Sequence[Any], told: Callable[[int, int], None]) -> NDArray[np.floating]:
        """The probabilities that are answered, N x labels."""
        return self.seen(contents, told)[0]

    def seen(
        self, contents: Sequence[Any], told: Callable[[int, int], None]
    ) -> tuple[NDArray[np.floating], list[NDArray[Any]]]:
        """The probabilities, and of each content what features are made of."""
        raise NotImplementedError

    def features(
        self, chances: NDArray[np.floating], rows: Sequence[NDArray[Any]], grams: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """What a correction is linear in; as the classifier makes it when it judges."""
        raise NotImplementedError


class _Words(_Judge):
    def __init__(self, folder: Path) -> None:
        self._classifier = TextClassifier(folder)
        self.labels, self.name = self._classifier.labels["category"], self._classifier.name

    def seen(
        self, contents: Sequence[Any], told: Callable[[int, int], None]
    ) -> tuple[NDArray[np.floating], list[NDArray[Any]]]:
        messages = [("", str(text)) for text in contents]
        found: list[NDArray[np.float32]] = [np.zeros((0, len(self.labels)), np.float32)]
        for rows in self._classifier.probabilities("category", messages):
            found.append(rows)
            told(sum(map(len, found)), len(messages))
        return np.concatenate(found), [code_points([message])[0] for message in messages]

    def features(
        self, chances: NDArray[np.floating], rows: Sequence[NDArray[Any]], grams: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return np.concatenate([text_features(row[np.newaxis], grams) for row in rows])


class _Pictures(_Judge):
    def __init__(self, folder: Path) -> None:
        self._classifier = PhotoClassifier(folder)
        self.labels, self.name = self._classifier.labels, self._classifier.name

    def seen(
        self, contents: Sequence[Any], told: Callable[[int, int], None]
    ) -> tuple[NDArray[np.floating], list[NDArray[Any]]]:
        chances, lie = [np.zeros((0, len(self.labels)), np.float32)], []
        for start in range(0, len(contents), _SOME):
            squares = np.concatenate([pixels(data) for data in contents[start : start + _SOME]])
            found, embeddings = self._classifier.outputs(squares)
            chances.append(found)
            lie += list(embeddings) if embeddings is not None else []
            told(start + len(squares), len(contents))
        return np.concatenate(chances), lie

    def features(
        self, chances: NDArray[np.floating], rows: Sequence[NDArray[Any]], grams: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return photo_features(chances, np.stack(rows) if rows else None)


def _judge(task: Task, folder: Path) -> _Judge:
    return _Words(folder) if task == "category" else _Pictures(folder)

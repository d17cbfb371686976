"""What a citizen's message is about: which class of government, which department, which of the citizen's categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.correction import text_features
from inference.model_files import MODELS, Model
from inference.predictions import TASKS, Judgement, Task, judgement
from inference.text_input import code_points

_BATCH_CHARACTERS = 20_000
_BATCH = 4
"""Messages judged at once. More are a little cheaper each, but take 3 MB a message in every thread that judges."""


class TextClassifier:
    """Character n-grams and one linear layer a task. Use one in a process: it may be called from several threads.

    Raises :class:`ModelUnavailable` when the weights are missing or damaged.
    """

    def __init__(self, folder: Path = MODELS) -> None:
        self._model = Model("texts", folder)
        self.session = self._model.session
        self.name = self._model.name
        self.labels: dict[Task, tuple[str, ...]] = {task: tuple(self._model.about["labels"][task]) for task in TASKS}

    def classify(self, task: Task, messages: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judge (title, text) pairs, in order; 0.4 ms of CPU time each. A title may be empty, and so may a text."""
        judged: list[Judgement] = []
        for rows in self.probabilities(task, messages):
            judged += [judgement(self.labels[task], row, self._model.name) for row in rows]
        return judged

    def probabilities(self, task: Task, messages: Sequence[tuple[str, str]]) -> Iterator[NDArray[np.float32]]:
        """The probabilities of each of :attr:`labels`, a few messages at a time, in order."""
        start = 0
        while start < len(messages):
            # Rows of a batch are filled up to the longest, so a batch is bounded by characters, not by messages.
            longest, end = 0, start
            while end < min(len(messages), start + _BATCH):
                longest = max(longest, sum(map(len, messages[end])) + 1)
                if end > start and longest * (end - start + 1) > _BATCH_CHARACTERS:
                    break
                end += 1
            points = code_points(messages[start:end])
            (probabilities,) = self.session.run([task], {"code_points": points})
            if (correction := self._model.corrections.get(task)) is not None:
                probabilities = correction.apply(probabilities, text_features(points, correction.grams))
            yield probabilities
            start = end

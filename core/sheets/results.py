"""The workbook that tells what came of each line of a sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.workbook import Column, Mark, MarkedWorkbook


class Result(NamedTuple):
    """What came of a line: its number (None: of no line), what it is known by, the outcome, what it became, and why."""

    line: int | None
    key: str
    outcome: str
    became: str | None = None
    why: str | None = None


class ResultWorkbook:
    """Results as they come; ``counts`` is how often each outcome was."""

    def __init__(self, path: Path, mark: Mark, *, key: str, became: str) -> None:
        """``key`` and ``became`` head the columns of what lines are known by, and of what they became."""
        columns = (
            Column("行号", 7, "number"),
            Column(key, 24),
            Column("结果", 10),
            Column(became, 23),
            Column("原因", 60),
        )
        self._book = MarkedWorkbook(path, "导入结果", columns, mark)
        self.counts: Counter[str] = Counter()

    def extend(self, results: Sequence[Result]) -> None:
        """Append ``results``."""
        self._book.extend(results)
        self.counts.update(result.outcome for result in results)

    def close(self) -> None:
        """Write the file."""
        self._book.close()

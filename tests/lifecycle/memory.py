"""Collections in memory, for as much of MongoDB as cases ask of theirs: held against the real one by a test.

Documents are written as BSON, so that what is read is what MongoDB would give. It is not to be changed by who reads it,
which the next update looks after. Whatever is asked for beyond that is refused by ``NotImplementedError``. Projections
are not applied: what is read is the whole document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.codec_options import CodecOptions

from core.clock import clock
from core.queue.debts import Document

_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
_MISSING = object()

Change = Document | list[Document]
"""An update: of the classic form, or the stages of a pipeline."""


@dataclass(frozen=True)
class Written:
    """What became of an update."""

    matched_count: int

    @property
    def modified_count(self) -> int:
        """Every update here changes what it matches."""
        return self.matched_count


class Found:
    """A cursor."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents

    def sort(self, by: str | Sequence[tuple[str, int]], direction: int = 1) -> Found:
        """Put them in order, the first field first."""
        for path, way in reversed([(by, direction)] if isinstance(by, str) else list(by)):
            self._documents.sort(key=lambda document: _values(document, path)[0], reverse=way < 0)
        return self

    def limit(self, most: int) -> Found:
        """No more than ``most``."""
        del self._documents[most:]
        return self

    async def to_list(self, _length: int | None = None) -> list[Document]:
        """All of them."""
        return self._documents

    async def __aiter__(self) -> AsyncIterator[Document]:
        for document in self._documents:
            yield document


class MemoryCollection:
    """Documents by their ``_id``. ``journal``: where each try to update one is noted, if anywhere."""

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[bytes, Document]] = {}
        self.journal: list[tuple[Document, Document, Change]] | None = None

    def clear(self) -> None:
        """Hold nothing any more."""
        self._kept.clear()

    async def insert_one(self, document: Document) -> None:
        """Take in a new one."""
        assert document["_id"] not in self._kept
        self._keep(document)

    async def find_one(self, query: Document, _projection: Any = None) -> Document | None:
        """The first that ``query`` matches."""
        return next(self._matched(query), None)

    def find(self, query: Document, _projection: Any = None) -> Found:
        """All that ``query`` matches."""
        return Found(list(self._matched(query)))

    async def find_one_and_update(self, query: Document, change: Change, **_: Any) -> Document | None:
        """Make ``change`` to the first that ``query`` matches; what it is after it."""
        before = next(self._matched(query), None)
        if self.journal is not None and (stands := self._kept.get(query["_id"])) is not None:
            self.journal.append((stands[1], query, change))
        return None if before is None else self._keep(changed(before, change))

    async def update_one(self, query: Document, change: Change) -> Written:
        """The same, and whether there was one."""
        return Written(int(await self.find_one_and_update(query, change) is not None))

    async def update_many(self, query: Document, change: Change) -> Written:
        """Make ``change`` to all that ``query`` matches."""
        found = list(self._matched(query))
        for document in found:
            self._keep(changed(document, change))
        return Written(len(found))

    def _matched(self, query: Document) -> Iterator[Document]:
        key = query.get("_id", {})
        if isinstance(key, str):
            found = self._kept.get(key)
            return iter([found[1]] if found and (len(query) == 1 or matches(found[1], query)) else [])
        return (document for _, document in list(self._kept.values()) if matches(document, query))

    def _keep(self, document: Document) -> Document:
        before = self._kept.get(document["_id"])
        assert before is None or bson.encode(before[1]) == before[0], "whoever read it has changed it in place"
        raw = bson.encode(document)
        after = bson.decode(raw, _CODEC)
        self._kept[document["_id"]] = raw, after
        return after


class MemoryDatabase(defaultdict[str, MemoryCollection]):
    """Collections by their name."""

    def __init__(self) -> None:
        super().__init__(MemoryCollection)


def matches(document: Document, query: Document) -> bool:
    """Whether MongoDB would find ``document`` by ``query``."""
    for path, wanted in query.items():
        if path == "$expr":
            if not evaluated(wanted, document, {"NOW": clock.now() - clock.offset}):
                return False
            continue
        values = _values(document, path)
        for operator, operand in wanted.items() if isinstance(wanted, dict) else [("$eq", wanted)]:
            if not _holds(operator, operand, values):
                return False
    return True


def _values(value: Any, path: str) -> list[Any]:
    """What stands at ``path``: of several in an array all, of an array itself what is in it too."""
    if not path:
        return [value, *value] if isinstance(value, list) else [value]
    name, _, rest = path.partition(".")
    if isinstance(value, dict):
        return _values(value[name], rest) if name in value else []
    if isinstance(value, list):
        found = [inner for item in value if isinstance(item, dict) for inner in _values(item, path)]
        return [*found, *_values(value[int(name)], rest)] if name.isdigit() and int(name) < len(value) else found
    return []


def _holds(operator: str, operand: Any, values: list[Any]) -> bool:
    match operator:
        case "$eq":
            return operand in values or (operand is None and not values)
        case "$ne":
            return not _holds("$eq", operand, values)
        case "$in":
            return any(_holds("$eq", one, values) for one in operand)
        case "$exists":
            return bool(values) is operand
        case "$lt" | "$lte" | "$gt":
            # Only what is of one kind is compared: no moment is before None.
            alike = [value for value in values if type(value) is type(operand)]
            compared = {"$lt": operand.__gt__, "$lte": operand.__ge__, "$gt": operand.__lt__}[operator]
            return any(compared(value) for value in alike)
    raise NotImplementedError(operator)


def changed(document: Document, change: Change) -> Document:
    """``document`` after ``change``."""
    if isinstance(change, list):
        for stage in change:
            ((operator, operand),) = stage.items()
            if operator == "$unset":
                for path in operand:
                    document = _without(document, path)
            elif operator == "$set":
                # All of a stage see the document as it was before it.
                for path, value in [(path, evaluated(e, document, {})) for path, e in operand.items()]:
                    document = _with(document, path, value)
            else:
                raise NotImplementedError(operator)
        return document
    for operator, operand in change.items():
        for path, value in operand.items():
            if operator == "$addToSet":
                present = document.get(path, [])
                value = present if value in present else [*present, value]
            elif operator != "$set":
                raise NotImplementedError(operator)
            document = _with(document, path, value)
    return document


def _with(document: Document, path: str, value: Any) -> Document:
    name, _, rest = path.partition(".")
    if not rest:
        return {**document, name: value}
    inner = document.get(name)
    if isinstance(inner, list):
        raise NotImplementedError("setting something in all elements of an array")
    return {**document, name: _with(inner if isinstance(inner, dict) else {}, rest, value)}


def _without(document: Document, path: str) -> Document:
    name, _, rest = path.partition(".")
    if not rest:
        return {key: value for key, value in document.items() if key != name}
    inner = document.get(name)
    return {**document, name: _without(inner, rest)} if isinstance(inner, dict) else document


def evaluated(expression: Any, document: Document, names: Document) -> Any:
    """The value of an expression of a pipeline, as :meth:`core.queue.debts.Amendment.pipeline` writes them."""
    match expression:
        case {"$literal": value}:
            return value
        case str() if expression.startswith("$"):
            of, path = (names, expression[2:]) if expression.startswith("$$") else (document, expression[1:])
            return _field(of, path)
        case {"$ifNull": [wanted, otherwise]}:
            value = evaluated(wanted, document, names)
            return evaluated(otherwise, document, names) if value is None or value is _MISSING else value
        case {"$concatArrays": parts}:
            return [item for part in parts for item in evaluated(part, document, names)]
        case {"$add": parts}:
            first, *more = (evaluated(part, document, names) for part in parts)
            if isinstance(first, datetime):  # and milliseconds
                return first + timedelta(milliseconds=sum(more))
            return sum(more, first)
        case {"$lt": [one, other]}:
            value = evaluated(one, document, names)
            # Nothing comes before any moment.
            return value in (None, _MISSING) or value < evaluated(other, document, names)
        case {"$filter": {"input": items, "as": name, "cond": condition}}:
            found = evaluated(items, document, names)
            return [item for item in found if evaluated(condition, document, {**names, name: item})]
        case {"$not": inner}:
            return not evaluated(inner, document, names)
        case {"$or": parts}:
            return any(evaluated(part, document, names) for part in parts)
        case {"$in": [item, items]}:
            return evaluated(item, document, names) in evaluated(items, document, names)
        case list():
            return [evaluated(item, document, names) for item in expression]
        case str() | int():
            return expression
    raise NotImplementedError(expression)


def _field(of: Document, path: str) -> Any:
    value: Any = of
    for name in path.split("."):
        value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    return value

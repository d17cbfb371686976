"""What staff see of what was suggested for a case, and of how it was routed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.queue.debts import Document
from handlers.models import Answer, Moment


class SuggestedCategory(Answer):
    """A category with its probability."""

    category: str
    name: str
    confidence: float


class SuggestionView(Answer):
    """What photos, words and the history of the place say that the case is, and whose."""

    category: str
    category_name: str
    confidence: float = Field(description="The probability of the category, 0 to 1.")
    evidence: float = Field(description="The same by words and photos alone.")
    unit: str | None = Field(description="By the routing rules, for this category here; null where none fits.")
    unit_name: str | None
    unit_confidence: float | None = Field(description="The probability of all categories that go to this unit here.")
    top: list[SuggestedCategory] = Field(description="The likeliest three, the first included.")
    reasons: list[str]
    photo_model: str | None = Field(description="Null: no photo could be judged.")
    text_model: str
    at: Moment
    automatic: bool = Field(description="The case was filed by it, without a person.")


class RoutingView(Answer):
    """How the case was dispatched first, and whether people led it elsewhere later."""

    automatic: bool = Field(description="No person between the report and its dispatch.")
    basis: Literal["suggestion", "picked", "staff"] = Field(description="Who named the category.")
    at: Moment
    category: str
    unit: str
    rerouted: str | None = Field(description="The action by which a person gave it another category or unit.")
    rerouted_at: Moment | None


def suggestion_view(report: Document) -> SuggestionView | None:
    """What was suggested for the case; None while it has not been judged."""
    found = report.get("suggestion")
    if not found:
        return None
    return SuggestionView(
        category=found["category"],
        category_name=found["category_name"],
        confidence=found["confidence"],
        evidence=found["evidence"],
        unit=found["unit_id"],
        unit_name=found["unit_name"],
        unit_confidence=found["unit_confidence"],
        top=[SuggestedCategory(**each) for each in found["top"]],
        reasons=found["reasons"],
        photo_model=found["models"]["photo"],
        text_model=found["models"]["text"],
        at=found["at"],
        automatic=found["automatic"],
    )


def routing_view(report: Document) -> RoutingView | None:
    """How the case was routed; None before it is dispatched."""
    found = report.get("routing")
    if not found:
        return None
    kept = {name: found[name] for name in ("automatic", "basis", "at", "category", "rerouted", "rerouted_at")}
    return RoutingView(unit=found["unit_id"], **kept)

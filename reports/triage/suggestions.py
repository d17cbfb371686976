"""What a case is about and whose it is, suggested by the worker; and filed by itself where that is sure enough.

A debt (``suggest``) of every report that is submitted, and of what its reporter adds. What comes of it is kept as
``suggestion``: ``category`` with its ``confidence`` (and ``evidence``, the same without the history of the place),
``unit_id`` and ``unit_confidence`` by the routing rules, the ``top`` three, ``reasons`` in Chinese, ``models``, ``at``,
and ``automatic``: whether the case was filed by it. Names stand beside keys, as they were then.

A category that the citizen has picked stands: it is filed and dispatched by rule at once and does not wait for this.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from accounts.staff import StaffService
from core.clock import now
from core.config_sections import Inference as InferenceSettings
from core.queue.debts import Amendment, Document, Payment, Postponed
from inference.model_files import ModelUnavailable
from inference.model_health import WAITING
from inference.photo_labelling import PhotoLabelling
from inference.predictions import NO_PROBLEM, Judgement, combined
from inference.service import InferenceService
from inference.suggestion import UNSORTED, Suggestion, suggestion
from reports.catalogue.categories import Catalogue
from reports.models import Given, Reporter, System, first_match
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.states import State

_HISTORY = timedelta(days=365)
_ASKING = "能看清问题的照片，或说明是什么问题、在什么位置（现有照片中未识别出问题）"
_SHOWN_NOTHING = System("照片中未识别出问题")


@dataclass(frozen=True)
class Proposal:
    """The unit of a suggestion: that of the first rule which fits its category and the place; None where none does.

    ``confidence`` is the probability of all categories that go to the same unit from there.
    """

    unit_id: str | None
    name: str | None
    confidence: float | None
    rule: str | None


class Suggestions:
    """Suggests categories and units for reports."""

    def __init__(
        self,
        *,
        reports: ReportService,
        queries: ReportQueries,
        catalogue: Catalogue,
        staff: StaffService,
        seeing: PhotoLabelling,
        inference: InferenceService,
        settings: InferenceSettings,
    ) -> None:
        self._reports = reports
        self._queries = queries
        self._catalogue = catalogue
        self._staff = staff
        self._seeing = seeing
        self._inference = inference
        self._settings = settings

    async def pay_suggest(self, report: Document, debt: Document) -> Payment:
        """Suggest, and file what is sure enough. Waits for the photos to be seen, and while the weights are missing.

        Somebody who was quicker has decided: what was suggested by then stays, and what was not is still written down.
        """
        waits = report["state"] == State.SUBMITTED and report["category"] is None
        if not self._settings.enabled or (report.get("suggestion") and not waits):
            return Payment()
        seen = await self._seeing.judgements(_photos(report), attempt=debt["attempts"])
        photo = combined(seen) if seen else None
        try:
            text = await self._inference.text("category", "", _words(report))
        except ModelUnavailable as error:
            raise Postponed(WAITING) from error
        history = await self._queries.closed_in_grid(report, now() - _HISTORY)
        found = suggestion(text, photo, history)
        names = await self._catalogue.names()
        offered = sorted((key for key in found.scores if key in names), key=lambda key: -found.scores[key])
        if not offered:  # a catalogue of the district's own that the classifier knows nothing of
            return Payment()
        unit = await self._proposal(report, offered[0], found.scores)
        suggested: Document = {
            "category": offered[0],
            "confidence": _rounded(found.scores[offered[0]]),
            "evidence": _rounded(found.evidence if offered[0] == found.category else 0.0),
            "category_name": names[offered[0]],
            "unit_id": unit.unit_id,
            "unit_name": unit.name,
            "unit_confidence": unit.confidence,
            "top": [
                {"category": key, "name": names[key], "confidence": _rounded(found.scores[key])} for key in offered[:3]
            ],
            "reasons": self._reasons(report, found, names, unit),
            "models": {"photo": photo.model if photo else None, "text": text.model},
            "at": now(),
            "automatic": waits and self._is_sure(report, suggested_of=offered[0], found=found),
        }
        amendment = Amendment(set={"suggestion": suggested})
        if not waits:
            return Payment(amendment)
        # The version too: what has been added or asked for meanwhile is looked at first.
        unmoved: Document = {"state": State.SUBMITTED, "category": None, "version": report["version"]}
        if suggested["automatic"]:
            by = System(f"按照片和文字识别为「{names[offered[0]]}」（置信度{suggested['confidence']:.0%}），自动立案")
            amendment = amendment.also(await self._reports.step("file", report, by, Given(category=offered[0])))
        elif self._shows_nothing(photo) and self._reports.row("ask_supplement", report, _SHOWN_NOTHING) is not None:
            asking = await self._reports.step("ask_supplement", report, _SHOWN_NOTHING, Given(reason=_ASKING))
            amendment = amendment.also(asking)
        return Payment(amendment, condition=unmoved)

    def _is_sure(self, report: Document, *, suggested_of: str, found: Suggestion) -> bool:
        """Whether the case is filed without a person: a citizen's own report, sorted with a probability that suffices.

        The threshold was found on words and photos, so these alone have to reach it too: the history of the place may
        only add doubt. Photos that contradict the words are for people, and so is what is checked on site first.
        """
        return (
            suggested_of == found.category != UNSORTED
            and not found.contradicted
            and min(found.confidence, found.evidence) >= self._settings.automatic_at
            and report["channel"] == Reporter.channel
            and self._reports.policy.checks.files_by_itself({**report, "category": found.category})
        )

    def _shows_nothing(self, photo: Judgement | None) -> bool:
        return photo is not None and photo.scores.get(NO_PROBLEM, 0.0) >= self._settings.nothing_at

    async def _proposal(self, report: Document, category: str, scores: dict[str, float]) -> Proposal:
        rules = await self._catalogue.rules()
        goes = {key: first_match(rules, {**report, "category": key}) for key in scores}
        rule = goes[category]
        if rule is None:
            return Proposal(None, None, None, None)
        shares: dict[str, float] = defaultdict(float)
        for key, each in goes.items():
            if each is not None:
                shares[each.unit] += scores[key]
        unit = await self._staff.unit(rule.unit)
        return Proposal(rule.unit, unit.name if unit else rule.unit, _rounded(shares[rule.unit]), rule.name)

    def _reasons(self, report: Document, found: Suggestion, names: dict[str, str], unit: Proposal) -> list[str]:
        reasons = list(found.reasons)
        if report["category"] is not None and report["category"] != found.category:
            picked = report["category_name"] or report["category"]
            reasons.append(f"与所选类别「{picked}」不一致，识别为「{names.get(found.category, found.category)}」")
        if unit.rule is not None:
            reasons.append(f"按派遣规则「{unit.rule}」确定处置部门")
        else:
            reasons.append("没有派遣规则适用于这个类别和位置，请人工选择处置部门")
        return reasons


def _photos(report: Document) -> list[str]:
    """The photos of the reporter's: those that came with the report, and with what was added."""
    added = [photo for entry in _added(report) for photo in entry["photos"]]
    return list(dict.fromkeys([*report["photos"], *added]))


def _words(report: Document) -> str:
    return "\n".join([report["description"], *(entry["note"] for entry in _added(report) if entry["note"])])


def _added(report: Document) -> list[Document]:
    return [e for e in report["timeline"] if e["action"] == "supplement" and e["by"]["kind"] == "reporter"]


def _rounded(chance: float) -> float:
    return round(chance, 4)

"""What the worker does for reports: route them, check their words, mark their photos, tell their people.

Each function pays one kind of debt; it may run twice for one debt and says so where that shows outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from core.audit import Audit, Origin
from core.database import Database
from core.queue.debts import Amendment, Document, Payment, Postponed
from core.wechat import MAX_CHECKED_CHARACTERS, NotRecentlyActive, Scene, WeChat
from notices.models import Message
from notices.service import NoticeService
from photos.service import PhotoService
from reports.catalogue.categories import Catalogue
from reports.channels import CHANNELS
from reports.lifecycle.guards import wanted
from reports.lifecycle.milestones import milestones
from reports.lifecycle.table import message_of
from reports.models import Given, System, first_match, from_partner
from reports.service import ReportService
from reports.states import STATE_NAMES, State


class ReportWorker:
    """Pays the debts of reports, and of photos towards them."""

    def __init__(
        self,
        database: Database,
        *,
        reports: ReportService,
        catalogue: Catalogue,
        photos: PhotoService,
        notices: NoticeService,
        wechat: WeChat,
        audit: Audit,
    ) -> None:
        self._collection = database["reports"]
        self._reports = reports
        self._catalogue = catalogue
        self._photos = photos
        self._notices = notices
        self._wechat = wechat
        self._audit = audit

    async def pay_route(self, report: Document, debt: Document) -> Payment:
        """File what has a category, and send it on: to its street, or to the unit that a rule names.

        Where neither can be, it waits for a dispatcher.
        """
        state = State(report["state"])
        if state not in (State.SUBMITTED, State.FILED) or report["category"] is None:
            return Payment()
        if state is State.SUBMITTED and from_partner(report):
            return Payment()  # staff have to read it first: filing is what makes it public
        if state is State.SUBMITTED and not self._reports.policy.checks.files_by_itself(report):
            return Payment(*self._reports.policy.checks.asked_by_rule(report))  # a check on site comes first
        unmoved = {"state": state, "unit_id": None, "version": report["version"]}
        amendment = Amendment()
        if state is State.SUBMITTED:
            by = System(CHANNELS[report["channel"]].filed_by)
            filing = await self._reports.step("file", report, by, Given(category=report["category"]))
            # The row of filing owes the routing that is being done here.
            filing.owe = [d for d in filing.owe if d["kind"] != "route"]
            amendment = amendment.also(filing)
            report = _after(report, filing)
        rule = first_match(await self._catalogue.rules(), report)
        to_street = System("本区实行两级派遣")
        if self._reports.row("send_to_street", report, to_street) is not None:
            amendment = amendment.also(await self._reports.step("send_to_street", report, to_street, Given()))
        elif unit := debt.get("unit"):  # whoever split the case has said who is to have this part
            why = "拆分时指定的处置部门"
            amendment = amendment.also(
                await self._reports.step("dispatch", report, System(why), Given(unit=unit, reason=why))
            )
        elif rule is not None:
            why = f"按派遣规则「{rule.name}」"
            dispatch = await self._reports.step("dispatch", report, System(why), Given(unit=rule.unit, reason=why))
            dispatch.push["timeline"][0]["given"]["rule"] = rule.key
            amendment = amendment.also(dispatch)
        # At once: what else is owed may wait for WeChat or for the classifiers, and the unit is to wait for neither.
        return Payment(amendment, condition=unmoved, prompt=True)

    async def pay_resume(self, report: Document, _debt: Document) -> Payment:
        """Let the clock of a suspended case go on: the date has come until which it was to stand still."""
        by = System("挂账到期")
        row = self._reports.row("resume", report, by)
        if row is None:  # resumed by hand meanwhile
            return Payment()
        amendment, _ = await self._reports.plan(row, report, by, Given())
        return Payment(amendment, condition={"state": report["state"], "version": report["version"]})

    async def pay_check_text(self, report: Document, debt: Document) -> Payment:
        """Have WeChat check what the reporter wrote; only what passes is shown to other citizens."""
        entry = next(e for e in report["timeline"] if e["id"] == debt["entry"])
        first = entry["action"] == "submit"
        openid = debt.get("openid") or report["reporter"]["openid"]
        if openid is None:  # the reporter has deleted their account: nothing more of theirs becomes public
            return Payment(_judged(debt["entry"], {"verdict": "unchecked"}, public=False if first else None))
        words = [report["description"], report["address"], *report["answers"].values()] if first else []
        words += [entry["note"] or "", entry["reason"] or ""]
        text = "\n".join(w for w in words if w)[:MAX_CHECKED_CHARACTERS]
        try:
            verdict = await self._wechat.check_text(openid, Scene.SOCIAL_LOG, text)
            rank = await self._wechat.risk_rank(openid, 2, debt.get("client_ip", "127.0.0.1")) if first else None
        except NotRecentlyActive:
            return Payment(_judged(debt["entry"], {"verdict": "unchecked"}, public=False if first else None))
        found: Document = {"verdict": verdict.suggest, "label": verdict.label}
        payment = Payment(_judged(debt["entry"], found, public=verdict.suggest == "pass" if first else None))
        if rank is not None:
            payment.amendment.set["risk_rank"] = rank
        return payment

    async def pay_attach(self, report: Document, debt: Document) -> Payment:
        """Mark the photos as this report's, and take over the verdicts that came before they were."""
        found = await self._photos.attach(debt["photos"], {"kind": "report", "id": report["_id"]})
        # Those that are pending are told later, or have been since they were read. What the report knows stays: staff
        # may have passed a partner's photo, which WeChat never checks.
        known = report["photo_verdicts"]
        verdicts = {p: s.verdict for p, s in found.items()}
        news = {p: v for p, v in verdicts.items() if v != "pending" and known.get(p, "pending") == "pending"}
        change = Amendment(set={f"photo_verdicts.{p}": v for p, v in news.items()})
        # Those that are not blurred yet are told of later, by :meth:`pay_tell_blurred`.
        change.set |= {f"photos_blurred.{p}": True for p, s in found.items() if s.blurred}
        return Payment(change)

    async def pay_notify(self, report: Document, debt: Document) -> Payment:
        """Send one subscribe message to one person, and write down what became of it.

        What was being sent when the worker died may or may not have arrived: that is written down as such and not sent
        again, since a message twice uses up an accept that the citizen gave for another one. Nobody is asked for more
        once they have given it, or somebody has gone on without: their accept is theirs again.
        """
        entry = next(e for e in report["timeline"] if e["id"] == debt["entry"])
        if debt.get("sending"):
            outcome: Document = {"result": "uncertain", "problem": "the worker stopped while sending"}
            await self._notices.written_off(debt["citizen"], debt["event"], debt["id"])
        elif debt["event"] == "supplement" and wanted(report) is None:
            await self._notices.called_off(debt["citizen"], debt["event"], debt["id"])
            return Payment()
        else:
            message = Message(
                event=debt["event"],
                page=f"pages/report/detail?number={report['_id']}",
                number=report["_id"],
                title=report["description"],
                status="需要补充" if debt["event"] == "supplement" else STATE_NAMES[State(entry["to"])],
                at=entry["at"],
                remark=message_of(entry),
            )
            sent = await self._notices.send(
                debt["citizen"],
                message,
                debt_id=debt["id"],
                attempt=debt["attempts"],
                before=self._sending(report, debt),
            )
            outcome = {"result": sent.result, "problem": sent.problem, "msgid": sent.msgid}
        line = {
            "event": debt["event"],
            "citizen_id": None if outcome["result"] == "gone" else debt["citizen"],
            "entry": debt["entry"],
            "at": entry["at"],
            **outcome,
        }
        return Payment(Amendment(push={"notices": [line]}), prompt=outcome["result"] != "no_accept")

    def _sending(self, report: Document, debt: Document) -> Callable[[bool], Awaitable[None]]:
        mine = {"_id": report["_id"], "owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}}

        async def mark(sending: bool) -> None:
            result = await self._collection.update_one(mine, {"$set": {"owed.$.sending": sending}})
            if not result.matched_count:
                raise Postponed("another worker has taken this over")

        return mark

    async def pay_audit(self, report: Document, debt: Document) -> Payment:
        """Put what a member of staff did on record, under the id of its timeline entry: twice makes one entry."""
        entry = next(e for e in report["timeline"] if e["id"] == debt["entry"])
        details: Document = {"photos": entry["photos"]}
        if entry["note"]:
            # The words may speak of people, and the log is never changed: it proves them, the timeline holds them.
            details["note_sha256"] = hashlib.sha256(entry["note"].encode()).hexdigest()
        await self._audit.record(
            f"report.{entry['action']}",
            subject={k: entry["by"][k] for k in ("kind", "id", "name", "on_behalf_of") if k in entry["by"]},
            object_={"kind": "report", "id": report["_id"]},
            reason=entry["reason"],
            changes=debt["changes"],
            details=details,
            entry_id=entry["id"],
            at=entry["at"],
            asked=Origin(**debt["asked"]),
        )
        return Payment()


def _after(report: Document, amendment: Amendment) -> Document:
    """``report`` with the fields that ``amendment`` sets, for planning the next step of the same update."""
    after = {**report, "milestones": milestones(report)}
    for path, value in amendment.set.items():
        name, _, inner = path.partition(".")
        after[name] = {**(after.get(name) or {}), inner: value} if inner else value
    return after


def _judged(entry_id: str, verdict: Document, *, public: bool | None) -> Amendment:
    amendment = Amendment(set={f"text_verdicts.{entry_id}": verdict})
    if public is not None:
        amendment.set["public"] = public
    return amendment

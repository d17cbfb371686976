"""Exports of cases: the staff list with its filters as a marked workbook, made by the worker.

Phones are masked unless whoever asks may look at them and says why; what is asked for goes into the audit log before
the job exists, and what came of it before anybody can have the file. Memory does not grow with the rows: a page of the
list is read, written to the disk and forgotten.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from accounts.models import StaffSession
from core.audit import Audit, AuditFilters
from core.clock import now, shanghai
from core.errors import Forbidden, Invalid, NotFound
from core.idempotency import Once
from core.ids import new_id
from core.marks import ExportMarks
from core.queue.debts import Document
from core.queue.jobs import OUTPUT, JobService, Outcome, Running
from core.storage.files import working_folder
from core.workbook import Column, Mark, MarkedWorkbook
from reports.channels import CHANNELS
from reports.followers import ReportPeople
from reports.models import reporter_name
from reports.queries import Filters, ReportQueries, is_late
from reports.states import STAFF_STATE_NAMES, State

KIND = "report_export"
COLUMNS = (
    Column("案件编号", 23),
    Column("状态", 9),
    Column("渠道", 12),
    Column("问题类别", 16),
    Column("问题描述", 48, traced=True),
    Column("地址", 30),
    Column("街道", 14),
    Column("社区", 16),
    Column("单元网格", 18),
    Column("经度（WGS-84）", 15, "number"),
    Column("纬度（WGS-84）", 15, "number"),
    Column("上报人", 16),
    Column("联系电话", 16),
    Column("外部工单号", 20),
    Column("要求回复时间", 17, "moment"),
    Column("上报时间", 17, "moment"),
    Column("立案时间", 17, "moment"),
    Column("派遣时间", 17, "moment"),
    Column("接收时间", 17, "moment"),
    Column("处置时限", 17, "moment"),
    Column("处置时间", 17, "moment"),
    Column("结案时间", 17, "moment"),
    Column("是否超时", 9),
    Column("处置部门", 20),
    Column("处置人员", 10),
    Column("返工次数", 9, "number"),
    Column("延期次数", 9, "number"),
    Column("满意度（1-5）", 13, "number"),
    Column("最近更新", 17, "moment"),
)
_STAFF = TypeAdapter(StaffSession)
_FILTERS = TypeAdapter(Filters)
_PAGE = 500
# The code as it is written in the marks; letters that are taken for digits are not in it.
_CODE = re.compile(r"(?<![0-9A-Z])[0-9A-HJKMNP-TV-Z]{8}(?![0-9A-Z])")


class FoundBy(StrEnum):
    """What in a text led to an export."""

    MARK = "mark"
    CODE = "code"


class ReportExports:
    """Takes the wish for an export, and is the runner of its job."""

    def __init__(
        self,
        *,
        queries: ReportQueries,
        people: ReportPeople,
        jobs: JobService,
        audit: Audit,
        marks: ExportMarks,
        work: Path,
        max_rows: int,
    ) -> None:
        """``work`` is a folder of this machine for files that are being made."""
        self._queries = queries
        self._people = people
        self._jobs = jobs
        self._audit = audit
        self._marks = marks
        self._work = work
        self._max_rows = max_rows

    async def ask(
        self, staff: StaffSession, filters: Filters, *, phones: bool, reason: str | None, once: Once | None = None
    ) -> Document:
        """The job of an export of the cases within reach that pass ``filters``, with ``phones`` in clear or masked.

        Raises :class:`Forbidden` for phones without the permission to look at them, :class:`Invalid` for phones without
        a reason.
        """
        job_id = new_id()
        asked = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(filters).items()}
        details = {"filters": {k: v for k, v in asked.items() if v or v is False}, "phones": phones}
        if phones and "report.view_contact" not in staff.permissions:
            await self._record(job_id, staff.named(), "report.export", reason, details, result="refused")
            raise Forbidden(
                "您没有查看联系电话的权限，请去掉「显示完整电话」后再导出。",
                code="NO_PERMISSION",
                details={"permission": "report.view_contact"},
            )
        if phones and not reason:
            problem = "导出完整电话必须说明用途"
            raise Invalid(f"请检查填写的内容。{problem}", details={"fields": [{"field": "reason", "problem": problem}]})
        await self._record(job_id, staff.named(), "report.export", reason, details)
        person = {**asdict(staff), "permissions": sorted(staff.permissions)}
        params = {"filters": asked, "phones": phones, "reason": reason, "staff": person}
        title = f"案件导出 {shanghai(now()):%Y-%m-%d %H:%M}"
        asker, reach = staff.named(), staff.reach.stored()
        return await self._jobs.ask(KIND, title, asker, params, reach=reach, once=once, job_id=job_id)

    async def run(self, job: Running) -> Outcome:
        """Make the workbook. Begun again, it makes the same file anew; the last one put is the one that is kept."""
        staff = _STAFF.validate_python(job.params["staff"])
        filters = _FILTERS.validate_python(job.params["filters"])
        total = await self._queries.staff_count(staff, filters, self._max_rows + 1)
        if total > self._max_rows:
            raise Invalid(
                f"符合条件的案件超过 {self._max_rows} 件，请缩小时间范围或增加筛选条件后分次导出。",
                code="TOO_MANY_ROWS",
                details={"max_rows": self._max_rows},
            )
        job.progress(0, total)
        mark = Mark(staff.name, now(), job.job_id)
        mark = replace(mark, invisible=self._marks.write(mark.code))
        with working_folder(self._work, job.job_id) as folder:
            path = folder / OUTPUT
            rows = await self._write(path, mark, staff, filters, job)
            name = f"案件_{shanghai(mark.at):%Y%m%d_%H%M}_{mark.code}.xlsx"
            file = await self._jobs.files.put(job.job_id, OUTPUT, path, title=name)
        # Under the code, which is all that somebody has who finds a part of it.
        await self._audit.record(
            "report.export_made",
            subject=staff.named(),
            object_={"kind": "export", "id": mark.code},
            reason=job.params["reason"],
            details={"job": job.job_id, "rows": rows, "phones": job.params["phones"], "sha256": file.sha256},
            entry_id=f"{job.job_id}-made",
        )
        return Outcome({"rows": rows, "code": mark.code}, file)

    async def trace(self, text: str) -> tuple[Document, FoundBy]:
        """The audit entry of the export that ``text`` was copied from, and what in the text led to it.

        An invisible mark goes before a code that is seen, which anybody can write; of either the last one counts.
        Raises :class:`NotFound` (``NO_MARK``, ``NO_SUCH_EXPORT``).
        """
        code, found_by = self._marks.read(text), FoundBy.MARK
        if code is None and (seen := _CODE.findall(text.upper())):
            code, found_by = seen[-1], FoundBy.CODE
        if code is None:
            raise NotFound("这段文字里没有导出标记，可能不是从导出的表格复制的。", code="NO_MARK")
        made = AuditFilters(object_kind="export", object_id=code, action="report.export_made")
        entries, _ = await self._audit.read(made, None, 1)
        if not entries:
            raise NotFound(f"没有编号为 {code} 的导出记录，记录可能已过保存期。", code="NO_SUCH_EXPORT")
        return entries[0], found_by

    async def _write(self, path: Path, mark: Mark, staff: StaffSession, filters: Filters, job: Running) -> int:
        phones = bool(job.params["phones"])
        # Making cells is the processor's work: off the loop, which others' short debts wait for.
        book = await asyncio.to_thread(MarkedWorkbook, path, "案件", COLUMNS, mark)
        page: str | None = None
        while True:
            reports, page = await self._queries.staff_list(staff, filters, page, _PAGE)
            await asyncio.to_thread(book.extend, (self._row(r, staff, phones=phones) for r in reports))
            job.progress(book.rows, max(job.total, book.rows))
            # What came in since it was counted stops at the limit as well: the newest come first, and are there.
            if page is None or book.rows >= self._max_rows:
                break
        await asyncio.to_thread(book.close)
        return book.rows

    def _row(self, report: Document, staff: StaffSession, *, phones: bool) -> tuple[Any, ...]:
        milestones: Document = report.get("milestones") or {}
        position = (report.get("location") or {}).get("coordinates") or (None, None)
        levels = report["place"]
        assignee = report.get("assignee") or {}
        return (
            report["_id"],
            STAFF_STATE_NAMES[State(report["state"])],
            CHANNELS[report["channel"]].name,
            report["category_name"],
            report["description"],
            report["address"],
            *((levels[level] or {}).get("name") for level in ("street", "community")),
            (levels["grid"] or {}).get("code"),
            *(None if degrees is None else round(degrees, 6) for degrees in position),
            reporter_name(report),
            self._people.phone(report, staff, clear=phones),
            *((report.get("external") or {}).get(name) for name in ("number", "reply_by")),
            report["created_at"],
            *(milestones.get(name) for name in ("filed_at", "dispatched_at", "accepted_at")),
            report["due_at"],
            milestones.get("handled_at") or report["handled_at"],
            milestones.get("closed_at"),
            "是" if is_late(report, now()) else "否",
            report["unit_name"],
            assignee.get("name"),
            *(milestones.get(name, 0) for name in ("reworks", "extensions")),
            (report["rating"] or {}).get("score"),
            report["updated_at"],
        )

    async def _record(
        self,
        job_id: str,
        subject: dict[str, str],
        action: str,
        reason: str | None,
        details: Document,
        *,
        result: Any = "done",
    ) -> None:
        await self._audit.record(
            action,
            subject=subject,
            object_={"kind": "job", "id": job_id},
            reason=reason,
            result=result,
            details=details,
        )

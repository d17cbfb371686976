"""Sheets of the hotline's orders (xlsx) that staff hand in: every row is taken or refused by itself, by the worker.

A row's order number makes one case however often the row is read, so a sheet may be sent twice and a worker may be
killed over it: what was loaded is found, and only the rest is loaded. A workbook with a line for each row is made.
"""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from pathlib import Path
from typing import Final

from accounts.models import StaffSession
from core.audit import Audit
from core.clock import now, shanghai
from core.errors import AppError, Unavailable
from core.queue.debts import Document
from core.queue.jobs import INPUT, OUTPUT, JobService, Outcome, Running
from core.sheets.bounds import Bounds
from core.sheets.reading import check_workbook, read_sheets
from core.sheets.results import Result, ResultWorkbook
from core.sheets.table import Line, SheetColumn, SheetTable, choice, code, moment, number, text
from core.storage.files import working_folder
from core.workbook import Mark
from places.coordinates import CRS
from places.models import Level, Position
from places.service import PlaceService
from reports.intake.orders import AREA, CALLER_PHONE, ORDER_NUMBER, IntakeService, Order, hotline, time_problems

KIND = "hotline_import"
BOUNDS: Final = Bounds(file_bytes=20 << 20, unpacked_bytes=200 << 20, rows=50_000, cells=3_000_000)

# What is through is known before the next so many are begun: a run that is cut off has got further by them.
_CHUNK = 32
_AT_ONCE = 8
_PATIENCE = 1800.0  # a job waits for the sheets before it as long as it takes to read some

_CRS_NAMES = {"WGS84": CRS.WGS84, "WGS-84": CRS.WGS84, "GCJ02": CRS.GCJ02, "GCJ-02": CRS.GCJ02}
_CRS_NAMES |= {"BD09": CRS.BD09, "BD-09": CRS.BD09}

TABLE: Final = SheetTable(
    (
        SheetColumn(
            "number",
            ("工单编号", "工单号", "流水号"),
            code(ORDER_NUMBER, "应为 1 到 60 位字母、数字、横线"),
            needed=True,
        ),
        SheetColumn("description", ("诉求内容", "工单内容", "问题描述"), text(5, 2000, one_line=False), needed=True),
        SheetColumn("address", ("诉求地址", "事发地址", "地址"), text(most=200)),
        SheetColumn("street", ("属地街道", "街道"), text(most=100)),
        SheetColumn("area", ("区域编码", "网格编码", "社区编码"), code(AREA, "应为 9、12 或 15 位数字", needed=False)),
        SheetColumn("longitude", ("经度",), number),
        SheetColumn("latitude", ("纬度",), number),
        SheetColumn("crs", ("坐标系",), text(most=20)),
        SheetColumn("category", ("诉求类别", "问题类别", "类别"), text(most=100)),
        SheetColumn("caller_name", ("来电人", "联系人"), text(most=40)),
        SheetColumn("caller_phone", ("来电号码", "联系电话"), code(CALLER_PHONE, "不是手机号或固定电话", needed=False)),
        SheetColumn("confidential", ("是否保密",), choice({"是": True, "否": False, "": False})),
        SheetColumn("received_at", ("受理时间", "来电时间"), moment),
        SheetColumn("reply_by", ("要求回复时间", "办理时限"), moment),
    ),
    BOUNDS,
)
"""The columns that are understood, by any of these headings; others are passed over."""


class HotlineSheets:
    """Takes a sheet, and is the runner of its job."""

    def __init__(
        self, *, intake: IntakeService, places: PlaceService, jobs: JobService, audit: Audit, work: Path
    ) -> None:
        self._intake = intake
        self._places = places
        self._jobs = jobs
        self._audit = audit
        self._work = work

    async def ask(self, staff: StaffSession, content: bytes, filename: str) -> Document:
        """The job that loads the sheet. Raises :class:`core.errors.UnsupportedMedia` for what is no workbook."""
        await check_workbook(content, BOUNDS)
        name = "".join(c for c in filename if c.isprintable())[-100:] or "工单.xlsx"
        title, reach = f"导入热线工单：{name}", staff.reach.stored()
        job = await self._jobs.ask(KIND, title, staff.named(), {}, reach=reach, input_file=(content, name))
        await self._record(staff.named(), job, "intake.import", {"file": name, "sha256": job["input"]["sha256"]})
        return job

    async def run(self, job: Running) -> Outcome:
        """Load the rows that can be loaded, and write down what came of each."""
        mark = Mark(job.asked_by["name"], now(), job.job_id)
        with working_folder(self._work, job.job_id) as folder:
            await self._jobs.files.fetch(job.job_id, INPUT, folder / INPUT)
            book = await asyncio.to_thread(ResultWorkbook, folder / OUTPUT, mark, key="工单编号", became="案件编号")
            unread = await self._load_all(job, folder, book)
            await asyncio.to_thread(book.close)
            name = f"导入结果_{shanghai(mark.at):%Y%m%d_%H%M}_{mark.code}.xlsx"
            file = await self._jobs.files.put(job.job_id, OUTPUT, folder / OUTPUT, title=name)
        counts = {name: book.counts[outcome] for outcome, name in _COUNTED.items()}
        await self._record(job.asked_by, {"_id": job.job_id}, "intake.imported", counts, once=True)
        told = {"unread_sheets": unread} if unread else {}
        return Outcome({"rows": sum(counts.values()), **counts, **told}, file)

    async def _load_all(self, job: Running, folder: Path, book: ResultWorkbook) -> list[str]:
        """Load the orders of the file in ``folder``; the names of the sheets that hold something else."""
        streets = {a.name: a.code for a in await self._places.areas(Level.STREET)}
        seen: dict[str, int] = {}
        async with read_sheets(folder / INPUT, BOUNDS, workbook_only=True, folder=folder, patience=_PATIENCE) as sheets:
            found = await asyncio.to_thread(TABLE.find, sheets)
            job.progress(0, found.rows)
            for sheet in found.unread:
                book.extend([Result(None, "", "未读取", why=f"工作表「{sheet}」没有工单的表头，未导入")])
            while chunk := await asyncio.to_thread(lambda: list(islice(found.lines, _CHUNK))):
                orders = [_order(line, streets, seen) for line in chunk]
                await asyncio.to_thread(book.extend, await self._load(chunk, orders, job.job_id))
                await job.reached(job.done + len(chunk))
        return found.unread

    async def _load(self, lines: list[Line], orders: list[Order | None], job_id: str) -> list[Result]:
        slots, partner = asyncio.Semaphore(_AT_ONCE), hotline()

        async def one(line: Line, order: Order | None) -> Result:
            if order is None:
                why = "；".join(problem.said for problem in line.problems)
                return Result(line.number, line.values["number"] or "", "未导入", why=why)
            async with slots:
                try:
                    taken = await self._intake.take(order, partner, by=job_id)
                except Unavailable:
                    raise  # a part that is out of order says nothing of the row: the job is tried again
                except AppError as refused:
                    return Result(line.number, order.number, "未导入", refused.details.get("number"), refused.message)
            return Result(line.number, order.number, "已导入" if taken.fresh else "已存在", taken.report["_id"])

        return list(await asyncio.gather(*map(one, lines, orders)))

    async def _record(
        self, subject: dict[str, str], job: Document, action: str, details: Document, *, once: bool = False
    ) -> None:
        await self._audit.record(
            action,
            subject=subject,
            object_={"kind": "job", "id": job["_id"]},
            details=details,
            entry_id=f"{job['_id']}-made" if once else None,
        )


_COUNTED = {"已导入": "loaded", "已存在": "present", "未导入": "refused"}


def _order(line: Line, streets: dict[str, str], seen: dict[str, int]) -> Order | None:
    """The order in ``line``; None where something is wrong, which the line then says.

    ``seen`` are the rows of the numbers before it.
    """
    given = line.values
    if given["number"] in seen:
        line.wrong("number", f"与第 {seen[given['number']]} 行重复")
    elif given["number"]:
        seen[given["number"]] = line.number
    for name, problem in time_problems(given["received_at"], given["reply_by"]).items():
        line.wrong(name, problem)
    position, area = _position(line), given["area"] or None
    if not area and (street := given["street"]):
        area = streets.get(street, street if re.fullmatch(AREA, street) else None)
        if area is None:
            line.wrong("street", f"没有名为「{street}」的街道")
    if position is None and area is None and not line.is_wrong("street", "area", "longitude", "latitude", "crs"):
        line.wrong("street", "经纬度、区域编码、属地街道至少填一项")
    if line.problems:
        return None
    return Order(
        **{
            name: given[name]
            for name in ("number", "description", "address", "confidential", "received_at", "reply_by")
        },
        category=given["category"] or None,
        position=position,
        area=area,
        caller_name=given["caller_name"] or None,
        caller_phone=given["caller_phone"] or None,
    )


def _position(line: Line) -> Position | None:
    longitude, latitude = line.values["longitude"], line.values["latitude"]
    if longitude is None and latitude is None:
        return None
    crs = _CRS_NAMES.get((line.values["crs"] or "").upper())
    if crs is None and not line.is_wrong("crs"):
        line.wrong("crs", "填了经纬度时，应为 WGS84、GCJ02 或 BD09")
    for name, value, most in (("longitude", longitude, 180), ("latitude", latitude, 90)):
        if value is None and not line.is_wrong(name):
            line.wrong(name, "经度和纬度应一并填写")
        elif value is not None and abs(value) > most:
            line.wrong(name, f"应在 -{most} 到 {most} 之间")
    if line.is_wrong("longitude", "latitude", "crs"):
        return None
    return Position(longitude=longitude, latitude=latitude, crs=crs)

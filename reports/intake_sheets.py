"""Sheets of the hotline's orders (xlsx) that staff hand in: every row is taken or refused by itself, by the worker.

A row's order number makes one case however often the row is read, so a sheet may be sent twice and a worker may be
killed over it: what was loaded is found, and only the rest is loaded. A workbook with a line for each row is made.
"""

from __future__ import annotations

import asyncio
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from accounts.models import StaffSession
from accounts.reach import reach_of
from core.audit import Audit
from core.clock import SHANGHAI, now, shanghai
from core.debts import Document
from core.errors import AppError, Invalid, Unavailable, UnsupportedMedia
from core.files import working_folder
from core.jobs import INPUT, OUTPUT, JobService, Outcome, Running
from core.workbook import Column, Mark, MarkedWorkbook
from places.coordinates import CRS
from places.models import Level, Position
from places.service import PlaceService
from reports.intake import IntakeService, Order, hotline

KIND = "hotline_import"
MAX_BYTES = 20 * 1024 * 1024
MAX_ROWS = 50_000

# What a workbook may grow to when it is unpacked: openpyxl holds all its texts in memory.
_MAX_UNPACKED = 300 * 1024 * 1024
_CHUNK = 100
_AT_ONCE = 8

HEADINGS: dict[str, tuple[str, ...]] = {
    "number": ("工单编号", "工单号", "流水号"),
    "description": ("诉求内容", "工单内容", "问题描述"),
    "address": ("诉求地址", "事发地址", "地址"),
    "street": ("属地街道", "街道"),
    "area": ("区域编码", "网格编码", "社区编码"),
    "longitude": ("经度",),
    "latitude": ("纬度",),
    "crs": ("坐标系",),
    "category": ("诉求类别", "问题类别", "类别"),
    "caller_name": ("来电人", "联系人"),
    "caller_phone": ("来电号码", "联系电话"),
    "confidential": ("是否保密",),
    "received_at": ("受理时间", "来电时间"),
    "reply_by": ("要求回复时间", "办理时限"),
}
"""The columns that are understood, by any of these headings; others are passed over."""

NEEDED = ("number", "description")
COLUMNS = (
    Column("行号", 7, "number"),
    Column("工单编号", 24),
    Column("结果", 10),
    Column("案件编号", 23),
    Column("原因", 60),
)

_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_PHONE = re.compile(r"1[3-9][0-9]{9}|0[0-9]{2,3}-?[0-9]{7,8}")
_AREA = re.compile(r"[0-9]{9}([0-9]{3}){0,2}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d")
_CRS_NAMES = {"WGS84": CRS.WGS84, "WGS-84": CRS.WGS84, "GCJ02": CRS.GCJ02, "GCJ-02": CRS.GCJ02}
_CRS_NAMES |= {"BD09": CRS.BD09, "BD-09": CRS.BD09}
_YES_NO = {"是": True, "否": False, "": False}


@dataclass(frozen=True)
class _Row:
    """A row that holds something: where it stands in the sheet, and its cells by the names of :data:`HEADINGS`."""

    line: int
    cells: dict[str, Any]


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
        """The job that loads the sheet. Raises :class:`UnsupportedMedia` for what is no workbook."""
        await asyncio.to_thread(_check_workbook, content)
        name = "".join(c for c in filename if c.isprintable())[-100:] or "工单.xlsx"
        title, reach = f"导入热线工单：{name}", reach_of(staff)
        job = await self._jobs.ask(KIND, title, staff.named(), {}, reach=reach, input_file=(content, name))
        await self._record(staff.named(), job, "intake.import", {"file": name, "sha256": job["input"]["sha256"]})
        return job

    async def run(self, job: Running) -> Outcome:
        """Load the rows that can be loaded, and write down what came of each."""
        mark = Mark(job.asked_by["name"], now(), job.job_id)
        counts = {"loaded": 0, "present": 0, "refused": 0}
        with working_folder(self._work, job.job_id) as folder:
            await self._jobs.files.fetch(job.job_id, INPUT, folder / INPUT)
            job.progress(0, await asyncio.to_thread(_count, folder / INPUT))
            rows = _rows(folder / INPUT)
            streets = {a.name: a.code for a in await self._places.areas(Level.STREET)}
            seen: dict[str, int] = {}
            book = await asyncio.to_thread(MarkedWorkbook, folder / OUTPUT, "导入结果", COLUMNS, mark)
            done = 0
            while chunk := await asyncio.to_thread(lambda: list(islice(rows, _CHUNK))):
                orders = [_order(row, streets, seen) for row in chunk]
                lines = await self._load(chunk, orders, job.job_id)
                for line in lines:
                    counts[_COUNTED[line[2]]] += 1
                await asyncio.to_thread(book.extend, lines)
                done += len(chunk)
                job.progress(done)
            await asyncio.to_thread(book.close)
            name = f"导入结果_{shanghai(mark.at):%Y%m%d_%H%M}_{mark.code}.xlsx"
            file = await self._jobs.files.put(job.job_id, OUTPUT, folder / OUTPUT, title=name)
        await self._record(job.asked_by, {"_id": job.job_id}, "intake.imported", counts, once=True)
        return Outcome({"rows": sum(counts.values()), **counts}, file)

    async def _load(
        self, rows: list[_Row], orders: list[Order | list[str]], job_id: str
    ) -> list[tuple[int, str, str, str | None, str | None]]:
        slots, partner = asyncio.Semaphore(_AT_ONCE), hotline()

        async def one(row: _Row, order: Order | list[str]) -> tuple[int, str, str, str | None, str | None]:
            number = _text(row.cells.get("number"))
            if isinstance(order, list):
                return row.line, number, "未导入", None, "；".join(order)
            async with slots:
                try:
                    taken = await self._intake.take(order, partner, by=job_id)
                except Unavailable:
                    raise  # a part that is out of order says nothing of the row: the job is tried again
                except AppError as refused:
                    return row.line, number, "未导入", refused.details.get("number"), refused.message
            return row.line, number, "已导入" if taken.fresh else "已存在", taken.report["_id"], None

        return list(await asyncio.gather(*map(one, rows, orders)))

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


def _check_workbook(content: bytes) -> None:
    """Raise :class:`UnsupportedMedia` unless ``content`` is a workbook of a size that can be read."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as packed:
            names = {info.filename for info in packed.infolist()}
            unpacked = sum(info.file_size for info in packed.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _no_workbook() from error
    if "xl/workbook.xml" not in names:
        raise _no_workbook()
    if unpacked > _MAX_UNPACKED:
        raise UnsupportedMedia("表格展开后过大，请拆分成几个文件再导入。", code="WORKBOOK_TOO_LARGE")


def _no_workbook() -> UnsupportedMedia:
    return UnsupportedMedia("请提交 Excel 工作簿（.xlsx）。", code="NOT_XLSX")


def _count(path: Path) -> int:
    """The rows that hold something. Raises :class:`Invalid` for a sheet that cannot be read, or is too long."""
    count = 0
    for count, _ in enumerate(_rows(path), 1):
        if count > MAX_ROWS:
            raise Invalid(f"表格超过 {MAX_ROWS} 行，请拆分后再导入。", code="TOO_MANY_ROWS")
    return count


def _rows(path: Path) -> Iterator[_Row]:
    """The rows of the first sheet below its headings. Raises :class:`Invalid`."""
    try:
        import openpyxl  # 30 MB, for those processes alone that read a sheet

        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        names: list[str | None] | None = None
        for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
            if names is None:
                names = _names(values)
                if names is None and line >= 10:
                    break
            elif any(value not in (None, "") for value in values):
                yield _Row(line, {n: v for n, v in zip(names, values, strict=False) if n is not None})
    except AppError:
        raise
    except Exception as error:
        # A damaged workbook breaks openpyxl in any of a dozen ways; whatever it is, the file cannot be read.
        raise Invalid("表格已损坏，无法读取，请用 Excel 另存为 .xlsx 后再试。", code="WORKBOOK_DAMAGED") from error
    if names is None:
        needed = "、".join(HEADINGS[name][0] for name in NEEDED)
        raise Invalid(f"没有找到表头。前 10 行中应有一行含：{needed}。", code="NO_HEADINGS")


def _names(values: tuple[Any, ...]) -> list[str | None] | None:
    """What each column is, if these are the headings."""
    known = {heading: name for name, headings in HEADINGS.items() for heading in headings}
    # 经度（WGS-84） and 工单编号* are headings that people write.
    found = [known.get(re.sub(r"[（(*\s].*$", "", _text(value))) for value in values]
    return found if set(NEEDED) <= set(found) else None


def _text(value: Any) -> str:
    """A cell's text: numbers as people typed them (a phone is no 13912345678.0)."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _CONTROL.sub("", str(value)).strip()


def _order(row: _Row, streets: dict[str, str], seen: dict[str, int]) -> Order | list[str]:
    """The order in ``row``, or what is wrong with it. ``seen`` are the rows of the numbers before it."""
    texts = {name: _text(row.cells.get(name)) for name in HEADINGS}
    problems: list[str] = []

    def check(holds: bool, problem: str) -> None:
        if not holds:
            problems.append(problem)

    number = texts["number"]
    check(bool(_NUMBER.fullmatch(number)), "工单编号应为 1 到 60 位字母、数字、横线")
    if number in seen:
        problems.append(f"工单编号与第 {seen[number]} 行重复")
    else:
        seen[number] = row.line
    check(5 <= len(texts["description"]) <= 2000, "诉求内容应为 5 到 2000 字")
    check(len(texts["address"]) <= 200, "诉求地址不超过 200 字")
    check(len(texts["category"]) <= 100, "诉求类别不超过 100 字")
    check(len(texts["caller_name"]) <= 40, "来电人不超过 40 字")
    check(not texts["caller_phone"] or bool(_PHONE.fullmatch(texts["caller_phone"])), "来电号码不是手机号或固定电话")
    check(texts["confidential"] in _YES_NO, "是否保密应填：是 或 否")
    moments = {}
    for name in ("received_at", "reply_by"):
        moments[name] = _moment(row.cells.get(name))
        check(bool(moments[name]) or not texts[name], f"{HEADINGS[name][0]}应为日期时间，如 2026-11-25 10:30")
    position = _position(texts, problems)
    area = texts["area"] or streets.get(texts["street"], texts["street"]) or None
    if area is not None and not _AREA.fullmatch(area):
        problems.append("区域编码应为 9、12 或 15 位数字" if texts["area"] else f"没有名为「{texts['street']}」的街道")
    check(position is not None or area is not None, "经纬度、区域编码、属地街道至少填一项")
    if problems:
        return problems
    return Order(
        number=number,
        description=texts["description"],
        address=texts["address"],
        category=texts["category"] or None,
        position=position,
        area=area,
        caller_name=texts["caller_name"] or None,
        caller_phone=texts["caller_phone"] or None,
        confidential=_YES_NO[texts["confidential"]],
        **moments,
    )


def _position(texts: dict[str, str], problems: list[str]) -> Position | None:
    given = [texts[name] for name in ("longitude", "latitude")]
    if not any(given):
        return None
    crs = _CRS_NAMES.get(texts["crs"].upper())
    if crs is None:
        problems.append("填了经纬度时，坐标系应为 WGS84、GCJ02 或 BD09")
        return None
    try:
        return Position(longitude=float(given[0]), latitude=float(given[1]), crs=crs)
    except ValueError:
        problems.append("经纬度不正确")
        return None


def _moment(value: Any) -> datetime | None:
    """A time as Excel keeps it, or as people type it: on a clock in Asia/Shanghai."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=SHANGHAI)
    if isinstance(value, date):
        return datetime.combine(value, time(), SHANGHAI)
    for form in _TIMES:
        try:
            return datetime.strptime(_text(value), form).replace(tzinfo=SHANGHAI)
        except ValueError:
            continue
    return None

"""Sheets that people hand in, xlsx or CSV, read by a child process with ceilings on its memory and time.

A workbook is a program for whoever reads it: two kilobytes can name a row that takes a terabyte, or unpack to a text
without end. So it is read where neither can hurt (:mod:`core.sheets.program`), one at a time in each process, and what
the child found lies in a file without a name when it is through: nothing of it stays in memory, however long the rows
are worked on. Cancelling whoever waits ends the child.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import structlog

from core.errors import AppError, Invalid, OutOfTime, TooLarge, Unavailable, UnsupportedMedia
from core.sheets import program
from core.sheets.bounds import Bounds

log = structlog.get_logger(__name__)

WALL_SECONDS: Final = 900.0
"""How long a child may take in all. Its processor time is bounded much closer; this is for a machine that is busy."""

_PATIENCE = 30.0
"""Seconds that a person waits for the sheets of others to be read."""

_OUT_OF_SECONDS = -signal.SIGXCPU

_START = (
    f"import json, sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
    "from core.sheets.program import main; sys.exit(main(json.loads(sys.argv[2])))"
)
"""Runs the program without anything of the environment. Its path is an argument so that lists of processes name it."""

_one_at_a_time = asyncio.Semaphore(1)


@dataclass(frozen=True)
class Fault:
    """A cell that has no value to be taken; ``problem`` is Chinese."""

    problem: str


Cell = str | float | bool | datetime | Fault | None
"""A cell. Numbers are as the file has them, in double precision; a moment has no zone; None is an empty one."""


@dataclass(frozen=True)
class RawSheet:
    """One worksheet, or a CSV file (without a name): ``rows`` is how many hold something."""

    name: str
    hidden: bool
    rows: int
    _at: int
    _spool: BinaryIO

    @property
    def is_csv(self) -> bool:
        """Whether it is a CSV file."""
        return not self.name

    def read(self) -> Iterator[tuple[int, list[Cell]]]:
        """The rows that hold something, each with its number as the spreadsheet counts. One reading at a time."""
        self._spool.seek(self._at)
        for _ in range(self.rows):
            line, cells = orjson.loads(self._spool.readline())
            yield line, [_cell(value) for value in cells]


@asynccontextmanager
async def read_sheets(
    source: Path | bytes,
    bounds: Bounds,
    *,
    workbook_only: bool = False,
    folder: Path | None = None,
    patience: float = _PATIENCE,
) -> AsyncIterator[list[RawSheet]]:
    """The sheets of ``source`` that hold something, good for the block. ``folder`` is where temporary files lie.

    Raises :class:`UnsupportedMedia` for what is no sheet or cannot be opened; :class:`Invalid` or :class:`TooLarge` for
    what is damaged or beyond ``bounds``; :class:`Unavailable` (``BUSY``) when the sheets of others take longer than
    ``patience`` seconds; :class:`OutOfTime` when the machine is so busy that reading came to no end.
    """
    with tempfile.TemporaryFile(dir=folder) as spool:
        told = await _run(source, bounds, spool, workbook_only=workbook_only, look=False, patience=patience)
        yield [RawSheet(s["name"], s["hidden"], s["rows"], s["at"], spool) for s in told]


async def check_workbook(content: bytes, bounds: Bounds) -> None:
    """Raise what :func:`read_sheets` would, as far as that shows without reading the rows."""
    with tempfile.TemporaryFile() as spool:
        await _run(content, bounds, spool, workbook_only=True, look=True, patience=_PATIENCE)


async def _run(
    source: Path | bytes, bounds: Bounds, spool: BinaryIO, *, workbook_only: bool, look: bool, patience: float
) -> list[dict[str, Any]]:
    options = {
        "bounds": asdict(bounds),
        "memory": bounds.memory,
        "seconds": bounds.seconds,
        "spool_bytes": bounds.spool_bytes,
        "spool": spool.fileno(),
        "parent": os.getpid(),
        "workbook_only": workbook_only,
        "look": look,
    }
    try:
        async with asyncio.timeout(patience):
            await _one_at_a_time.acquire()
    except TimeoutError:
        raise Unavailable("正在读取其他表格，请稍后再试。", code="BUSY") from None
    try:
        with await asyncio.to_thread(_opened, source) as file:
            code, out, err = await _child(json.dumps(options), file, spool.fileno())
    finally:
        _one_at_a_time.release()
    if code < 0:  # a signal ended it: its own, for want of memory, or the kernel's, for want of time
        why = "too_slow" if code == _OUT_OF_SECONDS else "too_large"
        log.info("sheet.refused", why=why, problem=f"signal {-code}")
        raise refusal({"refused": why}, bounds, workbook_only=workbook_only)
    if code not in (0, program.REFUSED):
        raise RuntimeError(f"the sheet was not read ({code}): {err[-2000:].decode(errors='replace')}")
    told = json.loads(out)
    if "refused" in told:
        log.info("sheet.refused", why=told["refused"], problem=told.get("problem"))
        raise refusal(told, bounds, workbook_only=workbook_only)
    sheets: list[dict[str, Any]] = told["sheets"]
    return sheets


def _opened(source: Path | bytes) -> BinaryIO:
    if isinstance(source, Path):
        return source.open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
    file.write(source)
    file.seek(0)
    return file


async def _child(options: str, file: BinaryIO, spool: int) -> tuple[int, bytes, bytes]:
    """Run the program: its exit status, and what it wrote. It does not outlive this call, however that ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _START, program.__file__, options),
        stdin=file,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[spool],
    )
    try:
        async with asyncio.timeout(WALL_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        raise OutOfTime("读取表格用时过长，请稍后再试。", code="SHEET_OUT_OF_TIME") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None  # noqa: S101 - it was waited for
    return process.returncode, out, err


def _cell(value: Any) -> Cell:
    if not isinstance(value, dict):
        plain: str | float | bool | None = value
        return plain
    if "d" in value:
        return datetime.fromisoformat(value["d"])
    if "e" in value:
        return Fault(f"单元格是错误值 {value['e'] or '#'}")
    if "l" in value:
        return Fault(f"内容超过 {value['l']} 个字")
    if "f" in value:
        return Fault("公式没有计算结果，请用 Excel 打开并保存后再试")
    if "m" in value:
        return Fault(f"属于合并单元格 {value['m']}，请取消合并并逐格填写")
    return Fault(f"单元格是时间 {value['t']}，没有日期")


def refusal(told: dict[str, Any], bounds: Bounds, *, workbook_only: bool) -> AppError:
    """What people are told of a file that was not read."""
    sheet = f"工作表「{told['sheet']}」" if told.get("sheet") else "表格"
    match told["refused"]:
        case "no_workbook":
            return UnsupportedMedia(
                f"请提交 Excel 工作簿（.xlsx）{'' if workbook_only else '或 CSV 文件'}。", code="NOT_XLSX"
            )
        case "old_workbook":
            return UnsupportedMedia("这是旧格式的 Excel 文件（.xls），请另存为 .xlsx 后再提交。", code="NOT_XLSX")
        case "binary_workbook":
            return UnsupportedMedia("这是二进制工作簿（.xlsb），请另存为 .xlsx 后再提交。", code="NOT_XLSX")
        case "encrypted":
            return UnsupportedMedia("文件设有打开密码，无法读取，请取消密码后再提交。", code="WORKBOOK_ENCRYPTED")
        case "damaged":
            return Invalid("文件已损坏，无法读取，请用 Excel 打开后另存为 .xlsx 再试。", code="WORKBOOK_DAMAGED")
        case "beyond_grid":
            return Invalid(
                f"{sheet}中有超出 Excel 范围的行号或列号，请用 Excel 打开后另存为 .xlsx 再试。", code="WORKBOOK_DAMAGED"
            )
        case "too_many_bytes":
            return TooLarge(
                f"文件超过 {bounds.file_bytes >> 20} MB，请拆分成几个文件再提交。", code="WORKBOOK_TOO_LARGE"
            )
        case "too_large":
            return TooLarge("表格展开后过大，请拆分成几个文件再提交。", code="WORKBOOK_TOO_LARGE")
        case "too_slow":
            return Invalid("表格内容过多，未能在规定时间内读完，请拆分成几个文件再提交。", code="WORKBOOK_TOO_SLOW")
        case "too_many_columns":
            return Invalid(
                f"{sheet}有 {told['last']} 列，最多 {bounds.columns} 列，请删除数据以外的列。", code="TOO_MANY_COLUMNS"
            )
        case "too_many_cells":
            return Invalid(
                f"{sheet}到第 {told['last']} 行已超过 {bounds.cells} 个单元格（空单元格计算在内），"
                "请删除数据以外的行和列，或拆分成几个文件。",
                code="TOO_MANY_CELLS",
            )
        case "line_too_long":
            return Invalid(f"{sheet}第 {told['line']} 行内容过长，请检查后再提交。", code="LINE_TOO_LONG")
        case "bad_csv":
            return Invalid(f"第 {told['line']} 行不是合法的 CSV，请检查引号。", code="BAD_CSV")
        case "bad_encoding":
            return Invalid("文件不是 UTF-8 或 GB18030 编码，请另存为 CSV UTF-8。", code="BAD_CSV")
    raise ValueError(f"nothing is known of {told['refused']!r}")

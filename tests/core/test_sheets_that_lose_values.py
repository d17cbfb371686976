"""Values that a file does not hold where people see them: results of formulas, and what merged cells show."""

from __future__ import annotations

import io

import openpyxl
import pytest

from tests.core.sheet_samples import book, cell, row
from tests.core.test_sheets import BOUNDS, HEAD, lines, raw, refused

NO_RESULT = "公式没有计算结果，请用 Excel 打开并保存后再试"


@pytest.mark.parametrize("value", ["", "<v/>", "<v></v>"])
@pytest.mark.parametrize("kind", ["", ' t="n"', ' t="b"'])
async def test_a_formula_that_was_never_worked_out_is_no_blank_cell(kind, value):
    found = await raw(book(row(1, f'<c r="A1"{kind}><f>1+1</f>{value}</c>', "其余")))
    ((_, ((_, (fault, rest)),)),) = found
    assert (fault.problem, rest) == (NO_RESULT, "其余")


@pytest.mark.parametrize("value", ["<v/>", "<v></v>"])
async def test_a_formula_that_comes_to_an_empty_text_is_a_blank_cell(value):
    cells = [f'<c r="A1" t="str"><f>IF(1=1,"","x")</f>{value}</c>', "其余", cell("C1", 2, formula="1+1")]
    assert await raw(book(row(1, *cells))) == [("Sheet1", [(1, [None, "其余", 2])])]


async def test_a_workbook_that_a_program_wrote_loses_no_formula_and_no_merged_value():
    written, out = openpyxl.Workbook(), io.BytesIO()
    written.active.append(HEAD[:3])
    written.active.append(("A-1", "路面破损", '="云溪"&"街道"'))
    written.active.append(("A-2", "路面积水", "云溪街道"))
    written.active.append(("A-3", "垃圾", None))
    written.active.merge_cells("C3:C4")
    written.save(out)
    _, read = await lines(out.getvalue())
    assert [(number, values["street"], problems) for number, values, problems in read] == [
        (2, None, [f"「属地街道」{NO_RESULT}"]),
        (3, "云溪街道", []),
        (4, None, ["「属地街道」属于合并单元格 C3:C4，请取消合并并逐格填写"]),
    ]


async def test_a_value_that_merged_cells_show_in_several_places_makes_all_lines_but_the_first_wrong():
    found, read = await lines(
        book(
            row(1, "热线工单表"),
            row(2, *HEAD, "备注"),
            row(3, "A-1", "路面破损", "云溪街道", "2026-11-25 10:30", cell("E3", 113.2), "是"),
            row(4, "A-2", "路面积水"),
            row(5, "A-3", "垃圾", cell("C5", "明湖街道")),
            row(6, "A-4", "路灯不亮", "明湖街道"),
            # Titles and headings may be merged; what is merged and blank hides nothing; G is nobody's column.
            merges=["A1:G1", "G2:H2", "C3:C5", "D4:D3", "E3:F3", "E4:E6", "G3:G6", "A9:A99"],
        )
    )
    assert (found.rows, [number for number, *_ in read]) == (4, [3, 4, 5, 6])
    merged = "属于合并单元格 {}，请取消合并并逐格填写".format
    assert [problems for *_, problems in read] == [
        [f"「是否保密」{merged('E3:F3')}"],
        [f"「属地街道」{merged('C3:C5')}", f"「受理时间」{merged('D4:D3')}"],
        [f"「属地街道」{merged('C3:C5')}"],
        [],
    ]


async def test_rows_that_hold_nothing_but_merged_cells_are_no_lines():
    """Headings over two rows, and records that take two rows each in every column."""
    over_two = [f"{column}{first}:{column}{first + 1}" for first in (1, 3) for column in "ABC"]
    found, read = await lines(book(row(1, *HEAD[:3]), row(3, "A-1", "路面破损", "云溪街道"), merges=over_two))
    assert found.rows == 1
    assert [(number, problems) for number, _, problems in read] == [(3, [])]


async def test_merged_cells_without_number_or_beyond_all_bounds_hang_nothing():
    everywhere = ["A1:XFD1048576"] * 20_000
    ((_, [(_, cells), *_]),) = await raw(book(row(1, "甲", "乙"), row(2, "丙"), merges=everywhere))
    assert cells[0] == "甲"
    assert "A1:XFD1048576" in cells[1].problem
    assert (await refused(book(row(1, "甲"), merges=["A1:?"]))).code == "WORKBOOK_DAMAGED"


@pytest.mark.deep
async def test_a_million_merged_cells_are_refused_or_read_but_hang_nothing():
    bounds = BOUNDS.__class__(
        file_bytes=32 << 20, unpacked_bytes=64 << 20, rows=100, cells=BOUNDS.cells, columns=BOUNDS.columns
    )
    content = book(row(1, *HEAD), merges=[f"A{line}:B{line}" for line in range(2, 1_000_002)])
    assert [(line, len(cells)) for line, cells in (await raw(content, bounds))[0][1]] == [(1, len(HEAD))]

"""Documents and labels as PDF, opened, read and looked at by libraries that did not make them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import pypdf
import pypdfium2
import pytest
import typst
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import pdf
from core.errors import Invalid
from tests.core.paper_support import codes_in, embedded_fonts, lines_of, page_image, text_of

MADE = datetime(2026, 11, 30, 9, 2, 3, tzinfo=timezone(timedelta(hours=8)))
LINK = "https://city.example.cn/v/aZ09_-xyzXYZ12345678901"
LAW = (
    "根据《户外广告设施设置管理办法》第十二条，经审查，你单位提交的招牌设置备案材料齐全、符合法定形式，准予备案。"
    "请按照备案的位置、尺寸、形式设置招牌，不得擅自变更；确需变更的，应当于变更前十个工作日提出申请（联系人：王某）。"
)
NEVER_FIRST = "，。、；：？！）》」』】”’"
NEVER_LAST = "（《「『【“‘"


def document(*blocks: pdf.Block, **more: object) -> pdf.Document:
    return pdf.Document("户外招牌设置备案凭证", "白云区城市管理局", MADE, blocks, **more)  # type: ignore[arg-type]


def made(*blocks: pdf.Block, **more: object) -> bytes:
    return pdf.render(document(*blocks, **more))


@pytest.fixture(scope="module")
def certificate() -> bytes:
    return made(
        pdf.Facts([("法定代表人", "㼆𠮷䶮喆堃"), ("经办人", "王𠀁"), ("地点", "三元里大道 1 号")]),
        pdf.Heading("一、备案内容"),
        pdf.Paragraph(LAW),
        pdf.Verification("BY26-8F3K-2M7Q", LINK, "请扫码核验。"),
        pdf.Code("右上角", at=(165, 12), side_mm=24),
        header="第一联",
        footer="共治平台",
    )


def test_all_that_was_given_can_be_copied_out(certificate: bytes) -> None:
    text = text_of(certificate)
    for part in ("户外招牌设置备案凭证", "法定代表人", "㼆𠮷䶮喆堃", "三元里大道1号", "一、备案内容", LAW):
        assert part in text
    for part in ("BY26-8F3K-2M7Q", "电子核验", "请扫码核验。", "第一联", "共治平台", "第1页，共1页"):
        assert part in text
    assert "王〔U+20001〕" in text  # what the typeface lacks, as its number


def test_fonts_are_embedded_with_just_what_is_used(certificate: bytes) -> None:
    fonts = embedded_fonts(certificate)
    assert fonts
    assert all(re.match(r"/[A-Z]{6}\+NotoSansCJKsc", name) for name in fonts)
    assert all(0 < size < 100_000 for size in fonts.values())
    assert len(certificate) < 200_000


def test_the_page_looks_written_and_its_codes_are_read(certificate: bytes) -> None:
    image = page_image(certificate)
    dark = sum(image.convert("L").histogram()[:128]) / (image.width * image.height)
    assert 0.02 < dark < 0.2
    assert sorted(codes_in(image)) == sorted([LINK, "右上角"])


def test_what_has_a_place_is_there(certificate: bytes) -> None:
    image = page_image(certificate, dots_per_inch=254)  # ten dots a millimetre
    assert codes_in(image.crop((1650, 120, 1890, 360))) == ["右上角"]


def test_the_file_says_what_it_is_by_whom_and_of_when(certificate: bytes) -> None:
    reader = pypdf.PdfReader(BytesIO(certificate))
    about = reader.metadata
    assert about is not None
    assert (about.title, about.author) == ("户外招牌设置备案凭证", "白云区城市管理局")
    assert about.creation_date == datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)
    root: Any = reader.trailer["/Root"]
    assert root["/Lang"].startswith("zh")
    assert root["/MarkInfo"]["/Marked"]  # can be read aloud
    width, height = reader.pages[0].mediabox[2:]
    assert (round(float(width) / 72 * 25.4), round(float(height) / 72 * 25.4)) == (210, 297)


def test_the_same_document_gives_the_same_bytes_also_at_once() -> None:
    plain = document(pdf.Paragraph(LAW), pdf.Code(LINK))
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(pdf.render, [plain] * 8))) == 1


def test_a_table_goes_on_over_pages_under_its_head_and_pages_are_counted() -> None:
    columns = [pdf.Column("序号", 1, "center"), pdf.Column("项目", 3), pdf.Column("金额（元）", 1, "right")]
    rows = [[str(number), f"生活垃圾处理费{number}号，按户计收" * (1 + number % 3), "12.50"] for number in range(120)]
    table = made(pdf.Table(columns, rows), pdf.Paragraph("共计"), landscape=True)
    pages = [page.extract_text() for page in pypdf.PdfReader(BytesIO(table)).pages]
    assert len(pages) > 3
    for number, page in enumerate(pages, 1):
        assert "序号" in page
        assert f"第{number}页，共{len(pages)}页" in re.sub(r"\s", "", page)
    text = text_of(table)
    assert all(f"生活垃圾处理费{number}号" in text for number in range(120))
    width, height = pypdfium2.PdfDocument(table)[0].get_size()
    assert width > height


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from("城市，。、（）《》“”：管理二十1aB"), min_size=150, max_size=300).map("".join))
def test_no_line_begins_or_ends_with_a_mark_that_must_not(text: str) -> None:
    # Runs of marks leave no right place to break, so each mark stands between characters.
    text = re.sub(rf"([{NEVER_FIRST}{NEVER_LAST}])(?=[{NEVER_FIRST}{NEVER_LAST}])", r"\1字", text.strip(NEVER_FIRST))
    lines = lines_of(made(pdf.Paragraph(f"起{text}终", indent=False)))[1:-1]
    assert len(lines) > 3
    for line in lines:
        assert line[0] not in NEVER_FIRST
        assert line.rstrip()[-1] not in NEVER_LAST


@pytest.mark.parametrize("number", ["91440101MA5ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 3, "1,234,567,890.50"])
@pytest.mark.parametrize("align", ["left", "right"])
def test_long_numbers_stay_within_their_column(number: str, align: pdf.Align) -> None:
    table = made(
        pdf.Table([pdf.Column("左", 6), pdf.Column("编", align=align), pdf.Column("右", 6)], [["左", number, "右"]])
    )
    assert number in text_of(table)
    image = page_image(table, dots_per_inch=254)
    # The columns' edges are at 22 + 166 * 6/13 and 22 + 166 * 7/13 mm; the insets of 2 mm stay white.
    for edge in (22 + 166 * 6 / 13, 22 + 166 * 7 / 13):
        for inset in (edge - 1.5, edge + 0.5):
            strip = image.crop((round(inset * 10), 385, round(inset * 10) + 10, 425)).convert("L")
            darkest: Any = strip.getextrema()[0]
            assert darkest > 140  # rules are grey


def test_numbers_that_fit_a_line_are_not_broken() -> None:
    columns = [pdf.Column("说明"), pdf.Column("右")]
    table = made(pdf.Table(columns, [["统一社会信用代码是一个很长的号码在此91440101MA5ABCDEFG", ""]]))
    assert "91440101MA5ABCDEFG" in lines_of(table)


def test_long_names_of_facts_leave_room_for_the_values() -> None:
    facts = made(pdf.Facts([("很长的名称" * 20, "很长的内容" * 3)]))
    assert "很长的内容" * 3 in lines_of(facts)


def test_a_text_longer_than_a_page_is_not_lost_in_a_table() -> None:
    table = made(pdf.Table([pdf.Column("号"), pdf.Column("说明", 0.3)], [["1", LAW * 8 + "终"]]))
    assert text_of(table).count("准予备案") == 8
    assert len(pypdf.PdfReader(BytesIO(table)).pages) > 1


def test_markup_and_control_characters_stay_text() -> None:
    nasty = '#panic("x") $a$ *b* \\ [c] @d <e> // f\x07'
    assert '#panic("x")$a$*b*\\[c]@d<e>//f〔U+0007〕' in text_of(
        made(pdf.Paragraph(nasty), pdf.Facts([(nasty, nasty)]))
    )


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_printed(text: str) -> None:
    facts = pdf.Facts([("甲" + text, text)])
    table = pdf.Table([pdf.Column("列" + text)], [[text]])
    assert "末尾" in text_of(made(pdf.Heading("乙" + text), pdf.Paragraph(text), facts, table, pdf.Paragraph("末尾")))


def picture(kind: str, mode: str = "RGB") -> bytes:
    buffer = BytesIO()
    Image.new(mode, (60, 40), "red" if mode == "RGB" else None).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_have_the_width_in_millimetres(kind: str) -> None:
    image = page_image(made(pdf.Picture(picture(kind), 60, "红色", at=(50, 100))), dots_per_inch=254).convert("RGB")
    red = Image.eval(image.getchannel("G"), lambda value: 255 if value < 100 else 0)
    blue_free = Image.eval(image.getchannel("R"), lambda value: 255 if value > 200 else 0)
    box = Image.composite(red, Image.new("L", red.size), blue_free).getbbox()
    assert box == pytest.approx((500, 1000, 1100, 1400), abs=3)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (pdf.Picture(b"GIF89a", 10, "x"), "无法打开"),
        (pdf.Picture(picture("PNG")[:60], 10, "x"), "无法打开"),
        (pdf.Picture(picture("JPEG", "CMYK"), 10, "x"), "CMYK"),
        (pdf.Code("x" * 3000), "太长"),
        (pdf.Code(LINK, side_mm=5), "太小"),
        (pdf.Table([pdf.Column("号")], [["1"]] * (pdf.MOST_ROWS + 1)), "最多 2000 行"),
        (pdf.Paragraph("长" * pdf.MOST_CHARACTERS), "太长"),
    ],
)
def test_what_cannot_be_printed_is_refused_in_chinese(block: pdf.Block, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        made(block)


def test_the_layouts_leave_nothing_to_warn_of() -> None:
    everything = document(
        pdf.Facts([("名", "值")]),
        pdf.Heading("标题"),
        pdf.Paragraph("文"),
        pdf.Table([pdf.Column("列")], [["格"]]),
        pdf.Picture(picture("PNG"), 10, "图"),
        pdf.Code(LINK),
        pdf.Verification("1", LINK, "注"),
        pdf.Space(5),
        pdf.NewPage(),
        pdf.Paragraph("末"),
    )
    with pytest.MonkeyPatch.context() as patch:
        warned: list[object] = []

        def compile_and_listen(*args: object, **named: object) -> bytes:
            result, warnings = typst.compile_with_warnings(*args, **named)  # type: ignore[call-overload]
            warned.extend(warnings)
            return bytes(result)

        patch.setattr(typst, "compile", compile_and_listen)
        pdf.render(everything)
        list(label_files(3))
    assert warned == []


SHEET = pdf.LabelSheet(columns=4, rows=5, width=48, height=56, code=40)


def label_files(count: int, sheet: pdf.LabelSheet = SHEET, **more: int) -> Iterator[bytes]:
    labels = (
        pdf.Label(f"https://c.example.cn/q/{number:020}", [f"SP-{number:06}", "喆堃𠮷餐饮店"])
        for number in range(count)
    )
    return pdf.label_sheets(labels, sheet, title="门牌码", author="白云区", created=MADE, **more)


def test_every_label_of_a_page_is_read_with_its_lines() -> None:
    (file,) = label_files(23)
    assert len(pypdf.PdfReader(BytesIO(file)).pages) == 2
    read = codes_in(page_image(file, 0)) + codes_in(page_image(file, 1))
    assert sorted(read) == [f"https://c.example.cn/q/{number:020}" for number in range(23)]
    text = text_of(file)
    assert all(f"SP-{number:06}" in text for number in range(23))
    assert text.count("喆堃𠮷餐饮店") == 23
    assert all(embedded_fonts(file).values())


def test_labels_are_where_the_sheet_says() -> None:
    (file,) = label_files(6)
    image = page_image(file, 0, 254)
    # The second label of the second row: the grid of 192 x 280 mm is in the middle of the page.
    assert codes_in(image.crop((90 + 480, 85 + 560, 90 + 960, 85 + 1120))) == [f"https://c.example.cn/q/{5:020}"]


def test_labels_are_taken_a_file_at_a_time() -> None:
    taken = 0

    def labels() -> Iterator[pdf.Label]:
        nonlocal taken
        for number in range(500):
            taken += 1
            yield pdf.Label(f"{number}")

    files = pdf.label_sheets(labels(), SHEET, title="码", author="区", created=MADE, pages_per_file=2)
    next(files)
    assert taken == 40
    assert len(list(files)) == 12
    assert taken == 500


def test_no_labels_make_no_file() -> None:
    assert list(label_files(0)) == []


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        (pdf.LabelSheet(5, 5, 48, 56, 40), "排不下"),
        (pdf.LabelSheet(0, 5, 48, 56, 40), "排不下"),
        (pdf.LabelSheet(4, 4, 48, 56, 50), "还大"),
        (pdf.LabelSheet(4, 4, 48, 44, 40), "放不下"),
        (pdf.LabelSheet(8, 8, 20, 30, 10), "太小"),
    ],
)
def test_sheets_that_cannot_be_printed_are_refused_in_chinese(sheet: pdf.LabelSheet, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        list(label_files(1, sheet))

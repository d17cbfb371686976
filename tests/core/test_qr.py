"""QR codes are read back by a library that did not draw them."""

from __future__ import annotations

import re
from io import BytesIO

import pytest
import typst
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core import qr, typeface
from core.errors import Invalid
from tests.core.paper_support import codes_in

LINK = "https://city.example.cn/q/aZ09_-xyzXYZ1234567890"
CAPTION = ("SP-000123", "三元里喆堃𠮷餐饮店")
LEVELS: tuple[qr.Level, ...] = ("L", "M", "Q", "H")


def opened(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))


def rasterised(svg: str, width_mm: int = 30, dots_per_inch: int = 150) -> Image.Image:
    page = f"#set page(width: {width_mm}mm, height: auto, margin: 0mm)\n#image(bytes(sys.inputs.svg), width: 100%)"
    png = typst.compile(page.encode(), format="png", ppi=dots_per_inch, sys_inputs={"svg": svg})
    return Image.open(BytesIO(png))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("caption", [(), CAPTION])
def test_small_codes_are_read_at_each_level(level: qr.Level, caption: tuple[str, ...]) -> None:
    framed = bool(caption)
    assert codes_in(opened(qr.png(LINK, level=level, module=2, caption=caption, framed=framed))) == [LINK]
    assert codes_in(rasterised(qr.svg(LINK, level=level, caption=caption, framed=framed))) == [LINK]


@settings(max_examples=25)
@given(payload=st.text(min_size=1, max_size=60), level=st.sampled_from(LEVELS), quick=st.booleans())
def test_any_text_is_read_back(payload: str, level: qr.Level, quick: bool) -> None:
    code = qr.encode(payload, level, quick=quick)
    image = Image.new("L", (code.side, code.side), 255)
    for y, row in enumerate(code.rows, qr.QUIET):
        for x, dark in enumerate(row, qr.QUIET):
            if dark:
                image.putpixel((x, y), 0)
    assert codes_in(image.resize((code.side * 3, code.side * 3), Image.Resampling.NEAREST)) == [payload]


def test_what_may_be_lost_at_the_highest_level_is_read_all_the_same() -> None:
    image = opened(qr.png(LINK, level="H", module=4)).convert("L")
    image.paste(
        255, (int(image.width * 0.38), int(image.height * 0.38), int(image.width * 0.6), int(image.height * 0.6))
    )
    assert codes_in(image) == [LINK]


def test_the_quiet_zone_is_four_white_modules_and_the_modules_are_square_pixels() -> None:
    image = opened(qr.png(LINK, module=7))
    assert image.width == image.height == qr.encode(LINK).side * 7
    assert image.convert("L").point(lambda value: 255 - value).getbbox() == (
        28,
        28,
        image.width - 28,
        image.height - 28,
    )
    assert {value for _, value in image.getcolors() or ()} == {0, 255}
    assert tuple(round(value) for value in image.info["dpi"]) == (300, 300)


def test_the_size_in_millimetres_holds_in_print() -> None:
    assert qr.pixels(25.4) == 300
    side = qr.encode(LINK).side
    assert f'width="{side * 0.5:g}mm" height="{side * 0.5:g}mm"' in qr.svg(LINK, module_mm=0.5)


def test_a_caption_is_below_the_code_and_within_the_picture() -> None:
    bare, named = opened(qr.png(LINK)), opened(qr.png(LINK, caption=["广州市白云区某某餐饮管理有限公司第一分公司" * 3]))
    assert named.width == bare.width
    assert named.height > bare.height
    below = named.crop((0, bare.height - 10, named.width, named.height)).point(lambda value: 255 - value).getbbox()
    assert below is not None
    assert below[0] > 0
    assert below[2] < named.width
    assert below[3] < named.height - bare.height + 10
    assert "某某" not in re.sub("<title>.*</title>", "", qr.svg(LINK, caption=["某某"]))  # outlines, not letters


def test_the_same_code_gives_the_same_bytes() -> None:
    assert qr.png(LINK, caption=CAPTION, framed=True) == qr.png(LINK, caption=CAPTION, framed=True)
    assert qr.svg(LINK, caption=CAPTION, framed=True) == qr.svg(LINK, caption=CAPTION, framed=True)


@pytest.mark.parametrize("level", LEVELS)
def test_the_longest_payload_is_drawn_and_a_byte_more_is_refused_in_chinese(level: qr.Level) -> None:
    assert len(qr.encode("a" * qr.LONGEST[level], level, quick=True).rows) == 177
    with pytest.raises(Invalid, match=f"最多 {qr.LONGEST[level]} 字节"):
        qr.encode("字" + "a" * (qr.LONGEST[level] - 2), level)


def test_what_cannot_be_drawn_is_refused_in_chinese() -> None:
    with pytest.raises(Invalid, match="不能为空"):
        qr.encode("")
    with pytest.raises(Invalid, match="尺寸"):
        qr.png(LINK, module=0)
    with pytest.raises(Invalid, match="尺寸"):
        qr.png(LINK, module=1000)


def test_markup_in_a_caption_stays_text() -> None:
    assert "<title>&lt;b&gt;&amp;</title>" in qr.svg(LINK, caption=["<b>&"])


def test_rare_characters_of_names_are_in_the_typeface_and_others_become_their_number() -> None:
    assert typeface.lacking("㼆𠮷䶮喆堃") == ""
    assert typeface.printable("王𠀁\t𠀁\u200b") == "王〔U+20001〕 〔U+20001〕"
    assert typeface.lacking("王𠀁𠀁") == "𠀁"
    pairs = [bytes([lead, trail]) for lead in range(0x81, 0xFF) for trail in range(0x40, 0xFF)]
    han = [char for char in (pair.decode("gbk", "ignore") for pair in pairs) if "\u3400" <= char <= "\u9fff"]
    assert len(han) == 20_902
    assert typeface.lacking("".join(han)) == ""

"""Pictures for the demo district: a street, drawn anew from each seed, with the problem of a category in it.

Plain drawings, but photos to the rest of the product: JPEG, 1200 x 900, grainy, with EXIF time and position.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from core.clock import shanghai
from places.coordinates import LonLat

SIZE = (1200, 900)
_HORIZON, _KERB = 380, 520  # rows: where the houses stand, where the pavement meets the road
_GRAIN = 6.0

Colour = tuple[int, int, int]
Draw = ImageDraw.ImageDraw

# EXIF tags (CIPA DC-008).
_MAKE, _MODEL, _DETAILS, _GPS = 0x010F, 0x0110, 0x8769, 0x8825
_TIME_ORIGINAL, _OFFSET_ORIGINAL = 0x9003, 0x9011


def draw_scene(
    category: str, seed: int, *, mended: bool = False, taken_at: datetime | None = None, position: LonLat | None = None
) -> bytes:
    """A JPEG of a street with the problem of ``category``, or of the same street ``mended``.

    ``taken_at`` and ``position`` (WGS-84) go into its EXIF. Equal arguments give equal pictures but for the grain.
    Takes some 30 ms of CPU time: call it in a thread. Raises :class:`KeyError` for a category that has no scene.
    """
    problem = _PROBLEMS[category]
    rng = random.Random(seed)
    image = _street(rng)
    pen = ImageDraw.Draw(image)
    if mended:
        # The same place an hour or a day later: other light, another step to the side.
        image = ImageChops.offset(image, rng.randint(-40, 40), 0).point(lambda value: min(255, int(value * 1.06)))
    else:
        problem(pen, rng)
    image = image.filter(ImageFilter.SMOOTH)
    left, top = (rng.randrange(128) for _ in range(2))
    grain = _noise().crop((left, top, left + SIZE[0], top + SIZE[1]))
    image = ImageChops.add(image, grain, 1, -128)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, exif=_exif(taken_at, position))
    return out.getvalue()


@lru_cache(maxsize=1)
def _noise() -> Image.Image:
    return Image.effect_noise((SIZE[0] + 128, SIZE[1] + 128), _GRAIN).convert("RGB")


def _exif(taken_at: datetime | None, position: LonLat | None) -> Image.Exif:
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = "Gongzhi", "Demo"
    if taken_at is not None:
        exif[_DETAILS] = {_TIME_ORIGINAL: f"{shanghai(taken_at):%Y:%m:%d %H:%M:%S}", _OFFSET_ORIGINAL: "+08:00"}
    if position is not None:
        exif[_GPS] = {
            1: "N" if position.latitude >= 0 else "S",
            2: _degrees(position.latitude),
            3: "E" if position.longitude >= 0 else "W",
            4: _degrees(position.longitude),
        }
    return exif


def _degrees(angle: float) -> tuple[float, float, float]:
    minutes, seconds = divmod(abs(angle) * 3600, 60)
    return (*divmod(minutes, 60), round(seconds, 3))


def _street(rng: random.Random) -> Image.Image:
    """Sky, houses, trees, pavement and road."""
    width, height = SIZE
    sky = Image.linear_gradient("L").resize((width, _HORIZON))
    bright = rng.randint(170, 225)
    image = Image.new("RGB", SIZE)
    image.paste(ImageOps.colorize(sky, (bright - 60, bright - 25, bright + 20), (bright, bright + 5, bright + 20)))
    pen = ImageDraw.Draw(image)
    left = -rng.randint(0, 80)
    while left < width:
        left = _house(pen, rng, left)
    tiles = _shade((168, 160, 150), rng, 14)
    pen.rectangle((0, _HORIZON, width, _KERB), fill=tiles)
    for x in range(-600, width + 600, 70):
        pen.line((x, _KERB, 600 + (x - 600) * 0.8, _HORIZON), fill=_darker(tiles, 0.9), width=2)
    for y in range(_HORIZON + 20, _KERB, 34):
        pen.line((0, y, width, y), fill=_darker(tiles, 0.92), width=2)
    pen.rectangle((0, _KERB, width, _KERB + 14), fill=(196, 194, 188))
    asphalt = _shade((92, 93, 97), rng, 10)
    pen.rectangle((0, _KERB + 14, width, height), fill=asphalt)
    for x in range(rng.randint(-150, 0), width, 260):
        pen.polygon([(x, 868), (x + 150, 868), (x + 162, 884), (x + 4, 884)], fill=(206, 204, 196))
    for _ in range(rng.randint(1, 3)):
        _tree(pen, rng, rng.choice((rng.randint(20, 330), rng.randint(870, 1180))))
    return image


def _house(pen: Draw, rng: random.Random, left: int) -> int:
    width, top = rng.randint(150, 300), rng.randint(40, 210)
    wall = _shade(rng.choice(((188, 176, 160), (170, 178, 184), (196, 186, 176), (176, 150, 134))), rng, 14)
    pen.rectangle((left, top, left + width, _HORIZON), fill=wall, outline=_darker(wall, 0.75))
    for y in range(top + 22, _HORIZON - 70, 46):
        for x in range(left + 18, left + width - 34, 48):
            pen.rectangle((x, y, x + 26, y + 30), fill=_shade((86, 104, 122), rng, 22), outline=_darker(wall, 0.8))
    pen.rectangle((left + 12, _HORIZON - 62, left + width - 12, _HORIZON), fill=_shade((120, 116, 112), rng, 20))
    pen.rectangle((left + 8, _HORIZON - 82, left + width - 8, _HORIZON - 60), fill=_shade((150, 80, 70), rng, 50))
    return left + width


def _tree(pen: Draw, rng: random.Random, x: int) -> None:
    pen.polygon([(x - 11, _KERB - 6), (x + 11, _KERB - 6), (x + 6, 230), (x - 6, 230)], fill=(92, 74, 58))
    for _ in range(34):
        _leaves(pen, rng, x + rng.gauss(0, 46), 190 + rng.gauss(0, 44), 34)


def _leaves(pen: Draw, rng: random.Random, x: float, y: float, most: int) -> None:
    r = rng.randint(most // 2, most)
    pen.ellipse((x - r, y - r * 0.8, x + r, y + r * 0.8), fill=_shade((72, 112, 62), rng, 22))


def _shade(colour: Colour, rng: random.Random, most: int) -> Colour:
    light, tint = rng.randint(-most, most), most // 4
    red, green, blue = (max(0, min(255, part + light + rng.randint(-tint, tint))) for part in colour)
    return red, green, blue


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(part * factor) for part in colour)
    return red, green, blue


def _blob(
    rng: random.Random, x: float, y: float, rx: float, ry: float, rough: float = 0.25
) -> list[tuple[float, float]]:
    """An irregular ellipse."""
    ring = []
    for step in range(26):
        angle, r = step / 26 * math.tau, 1 + rng.uniform(-rough, rough)
        ring.append((x + rx * r * math.cos(angle), y + ry * r * math.sin(angle)))
    return ring


def _bags(pen: Draw, rng: random.Random, x: float, y: float, count: int, spread: float) -> None:
    bags = sorted((y + rng.uniform(-0.3, 0.3) * spread, x + rng.gauss(0, spread)) for _ in range(count))
    for by, bx in bags:
        r = rng.randint(24, 46)
        colour = rng.choice(((34, 34, 38), (226, 226, 222), (58, 84, 150), (170, 52, 50), (54, 54, 60)))
        pen.polygon(_blob(rng, bx, by, r, r * 0.85, 0.14), fill=colour, outline=_darker(colour, 0.7))
        pen.polygon([(bx - 7, by - r * 0.7), (bx + 8, by - r * 0.7), (bx, by - r * 1.25)], fill=_darker(colour, 0.8))


def _litter(pen: Draw, rng: random.Random, x: float, y: float, count: int, spread: float) -> None:
    for _ in range(count):
        lx, ly = x + rng.gauss(0, spread), y + rng.gauss(0, spread * 0.25)
        pen.polygon(
            _blob(rng, lx, ly, rng.randint(4, 14), rng.randint(3, 8), 0.5), fill=_shade((200, 190, 178), rng, 50)
        )


def _garbage(pen: Draw, rng: random.Random) -> None:
    x, y = rng.randint(450, 750), rng.randint(500, 600)
    _bags(pen, rng, x, y, rng.randint(9, 15), 95)
    _litter(pen, rng, x, y + 50, 40, 170)


def _bins(pen: Draw, rng: random.Random) -> None:
    x, y = rng.randint(360, 560), rng.randint(560, 620)
    colour = rng.choice(((58, 118, 76), (66, 88, 128), (96, 98, 102)))
    for left in (x, x + 190):
        _bags(pen, rng, left + 75, y - 205, 5, 40)
        body = [(left, y - 190), (left + 150, y - 190), (left + 132, y), (left + 18, y)]
        pen.polygon(body, fill=_shade(colour, rng, 8), outline=_darker(colour, 0.6))
        pen.rectangle((left - 8, y - 204, left + 158, y - 184), fill=_darker(colour, 0.8))
        for wheel in (left + 28, left + 104):
            pen.ellipse((wheel, y - 8, wheel + 26, y + 18), fill=(30, 30, 32))
    _bags(pen, rng, x + 165, y + 20, 6, 130)
    _litter(pen, rng, x + 165, y + 50, 30, 160)


def _pothole(pen: Draw, rng: random.Random) -> None:
    x, y, r = rng.randint(480, 720), rng.randint(660, 730), rng.randint(120, 190)
    pen.polygon(_blob(rng, x, y, r * 1.1, r * 0.42), fill=(124, 120, 114))
    pen.polygon(_blob(rng, x, y + 4, r, r * 0.36), fill=(50, 46, 44))
    pen.polygon(_blob(rng, x + 12, y + 14, r * 0.6, r * 0.18), fill=(84, 88, 92))
    for _ in range(9):
        cx, cy = float(x), float(y)
        angle = rng.uniform(0, math.tau)
        for _ in range(7):
            nx, ny = cx + 44 * math.cos(angle), cy + 18 * math.sin(angle)
            pen.line((cx, cy, nx, ny), fill=(52, 50, 50), width=rng.randint(2, 4))
            cx, cy, angle = nx, ny, angle + rng.uniform(-0.6, 0.6)
    _litter(pen, rng, x, y + 50, 18, 120)


def _manhole(pen: Draw, rng: random.Random) -> None:
    x, y, r = rng.randint(480, 720), rng.randint(650, 730), rng.randint(120, 150)
    pen.ellipse((x - r - 18, y - r * 0.45 - 8, x + r + 18, y + r * 0.45 + 8), fill=(120, 116, 110))
    pen.ellipse((x - r, y - r * 0.45, x + r, y + r * 0.45), fill=(16, 15, 16))
    shift = rng.randint(70, 120)
    pen.ellipse(
        (x - r + shift, y - r * 0.45 - 16, x + r + shift, y + r * 0.45 - 16), fill=(66, 62, 60), outline=(40, 38, 38)
    )
    for step in range(-3, 4):
        pen.line((x + shift + step * 30, y - 42, x + shift + step * 34, y + 14), fill=(86, 80, 76), width=7)
    pen.line((x - 50, y + 20, x - 86, y - 210), fill=(104, 80, 56), width=9)
    pen.polygon([(x - 86, y - 210), (x - 30, y - 190), (x - 82, y - 160)], fill=(196, 44, 40))


def _cars(pen: Draw, rng: random.Random) -> None:
    for x in (rng.randint(60, 160), rng.randint(470, 540), rng.randint(840, 900)):
        y = rng.randint(590, 620)
        colour = rng.choice(((214, 214, 212), (40, 42, 46), (150, 40, 40), (58, 84, 130), (128, 130, 134)))
        pen.polygon(
            [(x + 62, y - 70), (x + 106, y - 128), (x + 226, y - 128), (x + 278, y - 70)], fill=_darker(colour, 0.85)
        )
        pen.polygon([(x + 82, y - 72), (x + 114, y - 116), (x + 160, y - 116), (x + 160, y - 72)], fill=(52, 62, 72))
        pen.polygon([(x + 170, y - 72), (x + 170, y - 116), (x + 218, y - 116), (x + 254, y - 72)], fill=(52, 62, 72))
        pen.rounded_rectangle((x, y - 74, x + 330, y), 24, fill=colour, outline=_darker(colour, 0.6), width=3)
        for wheel in (x + 46, x + 226):
            pen.ellipse((wheel, y - 34, wheel + 62, y + 28), fill=(24, 24, 26))
            pen.ellipse((wheel + 18, y - 16, wheel + 44, y + 10), fill=(140, 142, 146))


def _cart(pen: Draw, rng: random.Random) -> None:
    for x in (rng.randint(180, 280), rng.randint(620, 720)):
        y = rng.randint(610, 660)
        pen.line((x + 150, y - 110, x + 150, y - 330), fill=(120, 120, 122), width=8)
        shade = rng.choice(((190, 54, 48), (52, 96, 160), (226, 158, 50)))
        pen.polygon(
            [(x - 30, y - 290), (x + 150, y - 370), (x + 330, y - 290)], fill=shade, outline=_darker(shade, 0.7)
        )
        pen.rectangle((x, y - 120, x + 300, y - 40), fill=(96, 116, 96), outline=(50, 60, 50))
        fruit = rng.choice(((214, 112, 40), (186, 48, 44), (206, 186, 70)))
        for _ in range(60):
            fx, fy = x + rng.randint(8, 280), y - 136 + rng.randint(-22, 12)
            pen.ellipse((fx, fy, fx + 26, fy + 26), fill=_shade(fruit, rng, 26))
        for wheel in (x + 14, x + 216):
            pen.ellipse((wheel, y - 56, wheel + 76, y + 20), outline=(28, 28, 30), width=9)
    _litter(pen, rng, 600, 690, 30, 220)


def _goods(pen: Draw, rng: random.Random) -> None:
    x = rng.randint(180, 260)
    pen.rectangle((x, 150, x + 700, 230), fill=rng.choice(((170, 40, 38), (36, 88, 140), (36, 110, 74))))
    for step in range(6):
        left = x + 50 + step * 105
        pen.rectangle((left, 168, left + 62, 212), outline=(240, 236, 220), width=7)
    pen.rectangle((x, 230, x + 700, 420), fill=(70, 70, 74))
    for row in range(3):
        for step in range(8):
            left, top = x - 10 + step * 92 + rng.randint(-6, 6), 430 + row * 62
            box = _shade((182, 140, 92), rng, 26)
            pen.rectangle((left, top, left + 84, top + 58), fill=box, outline=_darker(box, 0.7), width=2)
            for _ in range(9):
                fx, fy = left + rng.randint(4, 58), top + rng.randint(-12, 14)
                pen.ellipse((fx, fy, fx + 22, fy + 22), fill=_shade((188, 96, 50), rng, 60))


def _stickers(pen: Draw, rng: random.Random) -> None:
    wall = _shade((186, 182, 172), rng, 12)
    pen.rectangle((110, 60, 1090, 690), fill=wall, outline=_darker(wall, 0.7), width=4)
    pen.rectangle((440, 140, 760, 690), fill=_shade((92, 96, 104), rng, 10), outline=(50, 52, 56), width=6)
    for _ in range(46):
        left, top = rng.randint(130, 980), rng.randint(80, 600)
        w, h = rng.randint(50, 100), rng.randint(36, 70)
        paper = rng.choice(((236, 232, 222), (240, 214, 70), (214, 84, 70), (120, 170, 206)))
        pen.polygon(
            [(left, top + rng.randint(-8, 8)), (left + w, top), (left + w, top + h), (left, top + h)], fill=paper
        )
        for line in range(3):
            y = top + 10 + line * h // 4
            pen.line((left + 8, y, left + w - 8 - rng.randint(0, 20), y), fill=_darker(paper, 0.35), width=4)


def _water(pen: Draw, rng: random.Random) -> None:
    y = rng.randint(670, 720)
    pen.polygon(_blob(rng, 600, y, 560, 150, 0.08), fill=(96, 104, 108))
    pen.polygon(_blob(rng, 600, y + 4, 530, 132, 0.06), fill=(116, 128, 136))
    for _ in range(90):
        x, line = rng.gauss(600, 220), y + rng.gauss(0, 48)
        length = rng.randint(20, 110)
        pen.line((x, line, x + length, line), fill=_shade((158, 170, 178), rng, 24), width=rng.randint(1, 3))
    for x in (430, 760):
        pen.polygon([(x, y - 10), (x + 44, y - 10), (x + 22, y - 110)], fill=(222, 98, 40))
        pen.line((x + 10, y - 50, x + 34, y - 50), fill=(240, 238, 230), width=12)


def _fallen_tree(pen: Draw, rng: random.Random) -> None:
    y = rng.randint(610, 690)
    pen.polygon([(200, y - 30), (210, y + 34), (820, y - 16), (816, y - 48)], fill=(96, 76, 58), outline=(60, 48, 38))
    pen.polygon(_blob(rng, 190, y, 74, 62, 0.35), fill=(84, 64, 48))
    for _ in range(9):
        pen.line((760, y - 30, 760 + rng.randint(60, 330), y + rng.randint(-190, 90)), fill=(88, 70, 54), width=8)
    for _ in range(90):
        _leaves(pen, rng, 920 + rng.gauss(0, 110), y - 40 + rng.gauss(0, 66), 38)


def _rubble(pen: Draw, rng: random.Random) -> None:
    x, y = rng.randint(520, 680), rng.randint(640, 690)
    pen.polygon(
        [(x - 380, y), (x - 190, y - 120), (x - 20, y - 215), (x + 190, y - 110), (x + 380, y)], fill=(146, 130, 114)
    )
    for _ in range(260):
        across = rng.uniform(-1, 1)
        bx, by = x + across * 370, y + 16 - rng.random() * 205 * (1 - abs(across))
        brick = _shade(rng.choice(((164, 88, 66), (176, 170, 160), (134, 122, 110), (204, 200, 192))), rng, 18)
        pen.polygon(
            _blob(rng, bx, by, rng.randint(10, 30), rng.randint(7, 18), 0.4), fill=brick, outline=_darker(brick, 0.7)
        )


def _lamp(pen: Draw, rng: random.Random) -> None:
    pen.rectangle((0, 0, *SIZE), fill=(24, 27, 38))
    for _ in range(60):
        left, top = rng.randint(0, 1160), rng.randint(120, 400)
        pen.rectangle((left, top, left + 20, top + 24), fill=_shade((150, 126, 70), rng, 40))
    pen.rectangle((0, _KERB, SIZE[0], SIZE[1]), fill=(36, 37, 42))
    lean = rng.randint(-120, 120)
    for x in (250, 620, 980):
        top = x + (lean if x == 620 else 0)
        pen.line((x, 700, top, 130), fill=(92, 94, 98), width=16)
        pen.line((top, 130, top + 110, 110), fill=(92, 94, 98), width=10)
        pen.ellipse((top + 90, 100, top + 170, 128), fill=(60, 62, 66))


def _cables(pen: Draw, rng: random.Random) -> None:
    for x in (150, 1040):
        pen.rectangle((x, 60, x + 22, 640), fill=(138, 134, 128), outline=(96, 94, 90))
    for _ in range(12):
        start, sag = rng.randint(90, 190), rng.randint(140, 430)
        line = [(160 + step * 44, start + sag * math.sin(step / 20 * math.pi)) for step in range(21)]
        pen.line(line, fill=_shade((26, 26, 28), rng, 10), width=rng.randint(4, 7), joint="curve")


_PROBLEMS: dict[str, Callable[[Draw, random.Random], Any]] = {
    "exposed_garbage": _garbage,
    "overflow_bin": _bins,
    "road_damage": _pothole,
    "manhole": _manhole,
    "illegal_parking": _cars,
    "street_vendor": _cart,
    "shop_encroachment": _goods,
    "illegal_ads": _stickers,
    "waterlogging": _water,
    "greenery_damage": _fallen_tree,
    "construction_waste": _rubble,
    "street_light": _lamp,
    "other": _cables,
}

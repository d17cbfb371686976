"""Mini-program codes: the round pictures that lead to a page with a scene."""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import re
import textwrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sandbox.errors import Refusal
from sandbox.interface import Interface, text_of, whole_number

SCENE = r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~`]{1,32}"
RAYS = 54
RINGS = 9


class UnlimitedCode(Interface):
    """getUnlimitedQRCode: a JPEG, or JSON where it is refused."""

    path = "/wxa/getwxacodeunlimit"
    minute_quota = (5000, 45009)

    async def answer(self, body: dict[str, Any]) -> bytes:
        """Refuses 40169, 41030, 40097, 47001."""
        scene = text_of(body, "scene", missing=40169)
        if not re.fullmatch(SCENE, scene):
            raise Refusal(40169)
        page = body.get("page", "")
        if not isinstance(page, str) or page.startswith("/") or "?" in page or len(page) > 128:
            raise Refusal(41030)
        check_path = body.get("check_path", True)
        if not isinstance(check_path, bool):
            raise Refusal(47001)
        published = self.world.settings.pages
        if check_path and page and published and page not in published:
            raise Refusal(41030)
        version = body.get("env_version", "release")
        if version not in {"release", "trial", "develop"}:
            raise Refusal(40097, "env_version")
        width = whole_number(body, "width", range(280, 1281), default=430)
        picture = await asyncio.to_thread(draw, scene, page, width)
        self.world.records.add("codes", scene=scene, page=page, env_version=version, width=width)
        self.set_header("Content-Type", "image/jpeg")
        return picture


def draw(scene: str, page: str, width: int) -> bytes:
    """A JPEG of that many pixels square that looks like a mini-program code, the scene legible in the middle.

    No phone reads it: WeChat's code is its own. What it leads to stands in the JPEG's comment, as ``page?scene=...``.
    """
    side = width * 2  # drawn at double size and reduced, for smooth edges
    picture = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(picture)
    centre, inner, outer = side / 2, side * 0.24, side * 0.47
    bits = _bits(f"{page}?{scene}")
    thick = side * 0.011

    def at(radius: float, angle: float) -> tuple[float, float]:
        return centre + radius * math.cos(angle), centre + radius * math.sin(angle)

    def dot(place: tuple[float, float], radius: float, colour: str) -> None:
        pen.ellipse((place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius), colour)

    step = (outer - inner) / RINGS
    for ray in range(RAYS):
        angle = 2 * math.pi * ray / RAYS
        for ring in range(RINGS):
            if bits[(ray * RINGS + ring) % len(bits)]:
                start, end = at(inner + ring * step, angle), at(inner + (ring + 0.9) * step, angle)
                pen.line((start, end), "#111111", round(thick))
                dot(start, thick / 2, "#111111")
                dot(end, thick / 2, "#111111")
    for corner in (-0.75, 0.75, 0.25):  # three eyes, as shares of a half turn
        eye = at(outer - side * 0.07, corner * math.pi)
        for radius, colour in ((0.085, "white"), (0.065, "#111111"), (0.048, "white"), (0.03, "#111111")):
            dot(eye, side * radius, colour)
    dot((centre, centre), inner * 0.92, "#07c160")
    lines = textwrap.wrap(scene, 11, break_on_hyphens=False)
    font = ImageFont.load_default(size=inner * 0.24)
    pen.multiline_text((centre, centre), "\n".join(lines), "white", font, anchor="mm", align="center")
    out = io.BytesIO()
    picture.resize((width, width), Image.Resampling.LANCZOS).save(
        out, "JPEG", quality=88, comment=f"{page}?scene={scene}".encode()
    )
    return out.getvalue()


def _bits(text: str) -> list[bool]:
    digest = hashlib.shake_256(text.encode()).digest(RAYS * RINGS // 8 + 1)
    return [bool(byte >> shift & 1) for byte in digest for shift in range(8)]

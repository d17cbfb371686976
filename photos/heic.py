"""HEIC photos, decoded in a child process with ceilings on its memory and time.

The header of a HEIC cannot be believed as those of the other kinds can: what a grid unfolds to and how large a tile is
comes out only while decoding. Seven kilobytes that claim 64 x 64 pixels were seen to cost 1.4 GB and seven seconds.
The decoder is also a large body of code that takes apart hostile input. So it runs where neither can hurt: in a
process (:mod:`photos.heic_decoder`) that the system stops once it takes more than its header can account for, one at a
time, and whose memory is gone with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass

from PIL import Image

from core.errors import Unavailable
from photos import heic_decoder

_MAX_WALL_SECONDS = 60

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Heic:
    """The primary picture of a HEIC file: ``width`` and ``height`` as its header says, already upright.

    ``image`` is no longer than the wanted side; it is None where the header says more pixels than allowed. ``exif`` is
    a TIFF block and ``icc`` a colour profile; each may be empty.
    """

    width: int
    height: int
    exif: bytes
    icc: bytes
    image: Image.Image | None


def decode_heic(data: bytes, *, side: int, max_pixels: int) -> Heic:
    """The primary picture in ``data``, its longest side at most ``side`` pixels.

    Raises ``ValueError`` for a file that is damaged or takes more memory or time than a photo can need, and
    :class:`Unavailable` when the decoder cannot run at all.
    """
    command = [sys.executable, "-I", heic_decoder.__file__, str(side), str(max_pixels)]
    with _one_at_a_time:
        try:
            child = subprocess.run(  # noqa: S603
                command, input=data, capture_output=True, timeout=_MAX_WALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError("the decoder came to no end") from error
    if child.returncode == heic_decoder.REFUSED or child.returncode < 0:  # below zero: a signal ended it
        raise ValueError(f"not decoded ({child.returncode}): {child.stderr[-300:].decode(errors='replace')}")
    if child.returncode:
        cause = RuntimeError(child.stderr[-2000:].decode(errors="replace"))
        raise Unavailable("暂时无法处理 HEIC 照片，请改用 JPEG 格式上传，或稍后再试。") from cause
    return _parse(child.stdout, max_pixels)


def _parse(output: bytes, max_pixels: int) -> Heic:
    line, _, _ = output.partition(b"\n")
    head = json.loads(line)
    width, height = head["stored"]
    exif = len(line) + 1
    icc = exif + head["exif"]
    pixels = icc + head["icc"]
    image = None
    if width * height <= max_pixels:
        image = Image.frombytes(head["mode"], tuple(head["size"]), memoryview(output)[pixels:])
    return Heic(width, height, output[exif:icc], output[icc:pixels], image)

"""The program that :func:`photos.heic.decode_heic` runs: a HEIC on standard input, its pixels on standard output.

Called as ``heic_decoder.py SIDE MAX_PIXELS``. Imports nothing of the product, so that it starts quickly. Writes one
line of JSON, then the EXIF block, the colour profile and the pixels; the line says how long each is. Ends with
:data:`REFUSED` for a file that it does not decode.
"""

from __future__ import annotations

import json
import resource
import sys

REFUSED = 3


def main(side: int, max_pixels: int) -> int:
    # No core file: it would hold the photo, position and all.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(0)

    import pi_heif
    from PIL import Image

    pi_heif.options.DECODE_THREADS = 1  # the machine's other cores have requests to answer
    try:
        file = pi_heif.open_heif(sys.stdin.buffer.read())
        width, height = file.size
        exif = (file.info.get("exif") or b"").removeprefix(b"Exif\0\0")
        icc = file.info.get("icc_profile") or b""
        mode, size, pixels = "L", (0, 0), b""
        if width * height <= max_pixels:
            _limit(width * height)
            image = file.to_pillow()
            image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
            mode, size, pixels = image.mode, image.size, image.tobytes()
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, IndexError, MemoryError) as error:
        sys.stderr.write(repr(error))
        return REFUSED
    head = {"stored": (width, height), "mode": mode, "size": size, "exif": len(exif), "icc": len(icc)}
    out = sys.stdout.buffer
    for part in (json.dumps(head).encode() + b"\n", exif, icc, pixels):
        out.write(part)
    out.flush()
    return 0


def _limit(pixels: int) -> None:
    """Let this process have what a picture of ``pixels`` takes, twice over, and no more."""
    memory = 400_000_000 + 20 * pixels  # address space, libraries included
    seconds = 3 + pixels // 4_000_000  # of processor time
    for kind, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""A photo's bytes to what the network takes: judged first, decoded no larger than needed, squeezed into a square."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photos.pictures import small_picture

SIDE: Final = 224
DECODED_SIDE: Final = 288
"""The longest side that is asked of the decoder: that of the photos learnt from."""


def square(image: Image.Image) -> NDArray[np.uint8]:
    """The whole of ``image``, ``SIDE`` x ``SIDE`` x 3. Nothing is cut off: the problem may be at the edge."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def pixels(data: bytes) -> NDArray[np.uint8]:
    """The network's input for one photo, 1 x ``SIDE`` x ``SIDE`` x 3, from a JPEG, PNG, WebP or HEIC file.

    Raises what :func:`photos.pictures.read_picture` raises, for the same reasons: a photo that could not be handed in
    cannot be judged either.
    """
    return square(small_picture(data, DECODED_SIDE))[np.newaxis]

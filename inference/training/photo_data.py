"""The photos to train on, their pixels kept decoded, and what is done to them so that a source's look teaches nothing.

A data folder holds ``manifest.csv`` (``file``, ``class``, ``split``, ``source_repo``, ``group``) and the files that it
names. Every source has its own camera, filter, size and compression, and most classes come from one source, so a
network can tell the classes apart without ever looking at the street. :func:`augmented` takes those tells away.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from rich.progress import track

from inference.predictions import PHOTO_CLASSES

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PhotoSet:
    """Photos with decoded pixels in memory. ``labels`` index :data:`PHOTO_CLASSES`; ``groups`` are near duplicates."""

    files: list[str]
    pixels: list[Pixels]
    labels: NDArray[np.int64]
    sources: list[str]
    groups: list[str]
    is_val: NDArray[np.bool_]


def read_photos(data: Path, work: Path) -> PhotoSet:
    """Every photo that ``data/manifest.csv`` names. Decoded pixels are kept in ``work`` for the next time."""
    with (data / "manifest.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    cache, shapes_file = work / "pixels.npy", work / "shapes.npy"
    if not cache.exists():
        work.mkdir(parents=True, exist_ok=True)
        pictures = []
        for row in track(rows, "decode photos"):
            with Image.open(data / row["file"]) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        np.save(shapes_file, np.array([picture.shape[:2] for picture in pictures]))
        np.save(cache, np.concatenate([picture.reshape(-1) for picture in pictures]))
    shapes = np.load(shapes_file)
    flat = np.load(cache, mmap_mode="r")
    ends = np.cumsum(shapes.prod(axis=1) * 3)
    pixels = [
        flat[end - height * width * 3 : end].reshape(height, width, 3)
        for end, (height, width) in zip(ends.tolist(), shapes.tolist(), strict=True)
    ]
    return PhotoSet(
        files=[row["file"] for row in rows],
        pixels=pixels,
        labels=np.array([PHOTO_CLASSES.index(row["class"]) for row in rows]),
        sources=[row["source_repo"] for row in rows],
        groups=[row["group"] for row in rows],
        is_val=np.array([row["split"] == "val" for row in rows]),
    )


SOURCE_SHARE: Final = 0.5
"""0 draws the photos of a class as they come, 1 draws its sources equally often."""


def draws(photos: PhotoSet, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """How often each of the ``chosen`` is drawn: classes by the square root of their size, sources evened within."""
    classes: dict[int, int] = {}
    sources: dict[tuple[int, str], int] = {}
    for index in chosen.tolist():
        key = (int(photos.labels[index]), photos.sources[index])
        classes[key[0]] = classes.get(key[0], 0) + 1
        sources[key] = sources.get(key, 0) + 1
    weights = np.array(
        [
            classes[int(photos.labels[index])] ** -0.5
            * (sources[int(photos.labels[index]), photos.sources[index]] / classes[int(photos.labels[index])])
            ** -SOURCE_SHARE
            for index in chosen.tolist()
        ]
    )
    return weights / weights.sum()


def _resized_crop(picture: Image.Image, side: int, random: np.random.Generator, smallest: float) -> Image.Image:
    """A rectangle of ``smallest`` to all of the area and of any likely shape, squeezed into a square."""
    width, height = picture.size
    area = random.uniform(smallest, 1.0)
    shape = np.exp(random.uniform(-0.35, 0.35))
    cut_width = min(width, width * np.sqrt(area * shape))
    cut_height = min(height, height * np.sqrt(area / shape))
    left, top = random.uniform(0, width - cut_width), random.uniform(0, height - cut_height)
    resampling = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.HAMMING)[random.integers(3)]
    return picture.resize((side, side), resampling, box=(left, top, left + cut_width, top + cut_height))


def at_the_edge(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A sixth to a third of a photo, from a corner or an edge: what it shows is mostly in the middle."""
    high, wide = pixels.shape[:2]
    share, shape = random.uniform(0.15, 0.35), np.exp(random.uniform(-0.3, 0.3))
    cut_high = min(high, round(high * float(np.sqrt(share / shape))))
    cut_wide = min(wide, round(wide * float(np.sqrt(share * shape))))
    across, down = random.uniform(0, 1, 2).tolist()
    if random.random() < 0.5:
        across = float(round(across))
    else:
        down = float(round(down))
    top, left = round((high - cut_high) * down), round((wide - cut_wide) * across)
    return pixels[top : top + cut_high, left : left + cut_wide]


def _coloured(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    for enhance, strength in (
        (ImageEnhance.Brightness, 0.4),
        (ImageEnhance.Contrast, 0.45),
        (ImageEnhance.Color, 0.7),
    ):
        if random.random() < 0.7:
            picture = enhance(picture).enhance(1 + random.uniform(-strength, strength))
    kind = random.random()
    if kind < 0.10:
        picture = picture.convert("L").convert("RGB")
    elif kind < 0.18:
        picture = ImageOps.autocontrast(picture, cutoff=random.uniform(0, 4))
    elif kind < 0.26:
        picture = Image.blend(picture, ImageOps.equalize(picture), random.uniform(0.3, 0.9))
    elif kind < 0.31:
        picture = ImageOps.posterize(picture, int(random.integers(3, 6)))
    return picture


def _sharpness(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Another lens, another size, another compression."""
    side = picture.width
    if random.random() < 0.25:
        smaller = int(side * random.uniform(0.3, 0.8))
        picture = picture.resize((smaller, smaller), Image.Resampling.BOX).resize(
            (side, side), Image.Resampling.BILINEAR
        )
    kind = random.random()
    if kind < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 1.6)))
    elif kind < 0.35:  # the local contrast of a phone's HDR mode, which two of the sources have throughout
        picture = picture.filter(
            ImageFilter.UnsharpMask(radius=random.uniform(1, 6), percent=int(random.uniform(40, 160)), threshold=0)
        )
    elif kind < 0.40:
        picture = picture.filter(ImageFilter.MedianFilter(3))
    if random.random() < 0.4:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(random.uniform(25, 90)))
        picture = Image.open(file).convert("RGB")
    return picture


def augmented(pixels: Pixels, side: int, random: np.random.Generator, smallest: float = 0.3) -> Pixels:
    """One of the many pictures that ``pixels`` could have been, ``side`` x ``side``."""
    picture = Image.fromarray(np.asarray(pixels))
    if random.random() < 0.15:
        picture = picture.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR, fillcolor=(124, 116, 104))
    picture = _resized_crop(picture, side, random, smallest)
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = _coloured(picture, random)
    picture = _sharpness(picture, random)
    values = np.asarray(picture, dtype=np.float32)
    if random.random() < 0.8:  # another white balance and exposure
        gain = np.exp(random.normal(0, 0.12, 3)).astype(np.float32)
        values = 255 * (np.clip(values * gain, 0, 255) / 255) ** np.float32(np.exp(random.normal(0, 0.25)))
    if random.random() < 0.2:
        values = values + random.normal(0, random.uniform(2, 10), values.shape).astype(np.float32)
    if random.random() < 0.25:  # something stands in front
        high, wide = random.integers(side // 8, side // 2, 2)
        top, left = random.integers(0, side - high), random.integers(0, side - wide)
        values[top : top + high, left : left + wide] = random.uniform(0, 255, 3)
    return np.clip(values, 0, 255).astype(np.uint8)


def squeezed(pixels: Pixels, side: int) -> Pixels:
    """The whole picture as a square, as the product takes it."""
    return np.asarray(Image.fromarray(np.asarray(pixels)).resize((side, side), Image.Resampling.BILINEAR))

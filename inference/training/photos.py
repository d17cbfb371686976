"""``python -m inference.training photos DATA``: the photo classifier, on two cores within an hour.

1. Several augmented views of every photo go once through ImageNet's network.
2. A linear head is fitted to the features that it gives for them. Pieces of photos in which it does not see what the
   photo shows are then examples of no problem, in the look of every source: nothing else tells a look from a problem
   where all photos of a class are from one source.
3. All that mixes channels is trained from there (see :mod:`inference.training.photo_network`), on views made anew each
   time and with photos mixed (a head that starts at random would first pull the features out of shape). What is kept
   is between the start and the moving average of what was learnt: it knows the sources nearly as well, and has
   forgotten less of the rest of the world.
4. The whole is put together as one graph, made int8, and calibrated on photos that it did not learn from.

Every step leaves its result in the work folder and is skipped when that is there.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from inference.photo_input import SIDE
from inference.predictions import NO_PROBLEM, PHOTO_CLASSES
from inference.training.figures import calibration_error, fitted_temperature, macro_f1, softmax
from inference.training.int8 import int8
from inference.training.photo_data import (
    PhotoSet,
    Pixels,
    at_the_edge,
    augmented,
    draws,
    read_photos,
    squeezed,
)
from inference.training.photo_graph import whole_graph
from inference.training.photo_network import FEATURES, Network, pretrained_body
from inference.training.texts import write

_NONE = PHOTO_CLASSES.index(NO_PROBLEM)

VIEWS = 3
"""View 0 is the photo as it is, the others are augmented."""

DIRECTIONS = 64
"""Of the embedding."""

BARE_CUTS = 2
"""Pieces that are cut from the edge of each photo that shows a problem."""

BARE_BELOW = 0.1
"""A piece is bare when the head gives what its photo shows less than this."""

BARE_SHARE = 0.04
"""Of what is learnt from, bare pieces."""

TRAINED_SIDE = 192
"""Smaller than what the product looks at: things stand larger in the cuts that are learnt from than in whole photos."""

KEPT = 0.6
"""The share of what was learnt in the weights that are delivered, the rest being the start's (WiSE-FT)."""


@dataclass(frozen=True)
class Schedule:
    """How long and how hard the network is trained."""

    epochs: int = 9
    batch: int = 32
    head_rate: float = 5e-4
    body_rate: float = 1.5e-4
    decay: float = 0.05
    smoothing: float = 0.1
    mixup: float = 0.3
    average: float = 0.995


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _samples(photos: PhotoSet, count: int) -> list[NDArray[np.uint8]]:
    """Batches of training photos, half of them augmented, to take the ranges of activations from."""
    random = np.random.default_rng(0)
    chosen = random.choice(np.flatnonzero(~photos.is_val), count, replace=False)
    pictures = [
        squeezed(photos.pixels[i], SIDE) if place % 2 else augmented(photos.pixels[i], SIDE, random)
        for place, i in enumerate(chosen.tolist())
    ]
    return [np.stack(pictures[start : start + 16]) for start in range(0, count, 16)]


def values(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Pictures of one size as the network takes them."""
    channels_last = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return ((channels_last.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def made_ahead(make: Callable[[Any], Tensor], parts: Iterable[Any], ahead: int = 3) -> Iterator[Tensor]:
    """What ``make`` makes of each of the ``parts``, a few of them made in a thread before they are asked for."""
    with ThreadPoolExecutor(1) as maker:
        coming: deque[Future[Tensor]] = deque()
        for part in parts:
            coming.append(maker.submit(make, part))
            if len(coming) > ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def view_features(network: Network, photos: PhotoSet, work: Path) -> list[NDArray[np.float32]]:
    """What ImageNet's network gives for every view; of photos kept for validation there is view 0 alone."""
    views = []
    for view in range(VIEWS):
        file = work / f"features{view}.npy"
        if not file.exists():
            found = np.zeros((len(photos.pixels), FEATURES), np.float32)
            chosen = np.flatnonzero(~photos.is_val | (view == 0)).tolist()
            parts = [chosen[start : start + 32] for start in range(0, len(chosen), 32)]

            def make(part: list[int], view: int = view) -> Tensor:
                return values(
                    [
                        squeezed(photos.pixels[i], TRAINED_SIDE)
                        if view == 0
                        else augmented(photos.pixels[i], TRAINED_SIDE, np.random.default_rng((view, i)))
                        for i in part
                    ]
                )

            with torch.no_grad():
                for part, made in track(
                    zip(parts, made_ahead(make, parts), strict=True), f"view {view}", total=len(parts)
                ):
                    found[part] = network.features(made).numpy()
            np.save(work / "features.part.npy", found)
            (work / "features.part.npy").replace(file)
        views.append(np.load(file))
    return views


@dataclass(frozen=True)
class Bare:
    """Pieces of photos that show no problem, and the features that ImageNet's network gives for them."""

    pieces: list[Pixels]
    rows: NDArray[np.float32]


def bare_pieces(network: Network, photos: PhotoSet, chosen: NDArray[np.int64], file: Path) -> Bare:
    """Those of the pieces of the ``chosen`` photos in which the head does not see what their photo shows.

    The features of all pieces of these photos are kept in ``file`` for the next time.
    """
    shown = [i for i in chosen.tolist() if photos.labels[i] != _NONE]
    pieces = [
        (i, at_the_edge(photos.pixels[i], np.random.default_rng((4, cut, i))))
        for cut in range(BARE_CUTS)
        for i in shown
    ]
    if not file.exists():
        parts = [pieces[start : start + 32] for start in range(0, len(pieces), 32)]
        found = []
        with torch.no_grad():
            for part in track(parts, "pieces"):
                found.append(network.features(values([squeezed(piece, TRAINED_SIDE) for _, piece in part])).numpy())
        np.save(file, np.concatenate(found))
    rows = np.load(file)
    with torch.no_grad():
        chances = torch.softmax(network.head(torch.from_numpy(rows)), 1).numpy()
    kept = np.flatnonzero([chances[place, photos.labels[i]] < BARE_BELOW for place, (i, _) in enumerate(pieces)])
    return Bare([pieces[place][1] for place in kept.tolist()], rows[kept])


def fit_head(
    rows: list[NDArray[np.float32]],
    photos: PhotoSet,
    chosen: NDArray[np.int64],
    penalty: float = 1e-3,
    bare: Bare | None = None,
) -> nn.Linear:
    """A linear head for the ``chosen`` photos; ``rows`` are the features of each view of all photos."""
    seen = np.concatenate([*(view[chosen] for view in rows), *([bare.rows] if bare else [])])
    centre, spread = seen.mean(0), seen.std(0) + 1e-2
    inputs = torch.from_numpy((seen - centre) / spread)
    known, weight = np.tile(photos.labels[chosen], len(rows)), np.tile(draws(photos, chosen), len(rows)) / len(rows)
    if bare:
        count = len(bare.rows)
        known = np.concatenate([known, np.full(count, _NONE)])
        weight = np.concatenate([weight * (1 - BARE_SHARE), np.full(count, BARE_SHARE / count)])
    labels, shares = torch.from_numpy(known), torch.from_numpy(weight).float()
    targets = functional.one_hot(labels, len(PHOTO_CLASSES)).float() * 0.9 + 0.1 / len(PHOTO_CLASSES)
    head = nn.Linear(seen.shape[1], len(PHOTO_CLASSES))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    search = torch.optim.LBFGS(head.parameters(), max_iter=60, history_size=8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        unlikely = -(targets * functional.log_softmax(head(inputs), 1)).sum(1)
        value = (shares * unlikely).sum() + penalty * head.weight.square().sum()
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        head.weight /= torch.from_numpy(spread)
        head.bias -= head.weight @ torch.from_numpy(centre)
    return head


def fine_tune(
    network: Network,
    photos: PhotoSet,
    chosen: NDArray[np.int64],
    bare: Sequence[Pixels],
    schedule: Schedule,
    checkpoint: Path,
) -> dict[str, Tensor]:
    """Train ``network`` on the ``chosen`` photos and ``bare`` pieces; averaged weights. Goes on from ``checkpoint``."""
    torch.manual_seed(1)
    head = list(network.head.parameters())
    body = [p for p in network.body.parameters() if p.requires_grad]
    rates = [schedule.body_rate, schedule.head_rate]
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": rates[0]}, {"params": head, "lr": rates[1]}], weight_decay=schedule.decay
    )
    steps = len(chosen) // schedule.batch
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps * schedule.epochs, pct_start=0.15)
    averaged = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    done = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        rate.load_state_dict(kept["rate"])
        averaged, done = kept["averaged"], kept["done"]
    shares = draws(photos, chosen)
    console = Console()
    pixels = [*photos.pixels, *bare]
    labels = np.concatenate([photos.labels, np.full(len(bare), _NONE)])
    network.mixes_styles = True
    for epoch in range(done, schedule.epochs):
        random = np.random.default_rng((2, epoch))
        order = random.choice(chosen, (steps, schedule.batch), p=shares)
        of_bare = random.integers(len(photos.pixels), len(pixels), order.shape)
        order = np.where(random.random(order.shape) < BARE_SHARE, of_bare, order)

        def make(step: int, epoch: int = epoch, order: NDArray[np.int64] = order) -> Tensor:
            own = np.random.default_rng((3, epoch, step))
            return values([augmented(pixels[i], TRAINED_SIDE, own) for i in order[step].tolist()])

        losses = []
        for part, made in track(
            zip(order, made_ahead(make, range(steps)), strict=True),
            f"epoch {epoch + 1} of {schedule.epochs}",
            total=steps,
        ):
            truth = torch.from_numpy(labels[part])
            share, other = float(random.beta(schedule.mixup, schedule.mixup)), torch.randperm(len(part))
            guessed = network.head(functional.dropout(network.features(_mixed(made, other, share, random)), 0.2))
            loss = share * functional.cross_entropy(guessed, truth, label_smoothing=schedule.smoothing)
            loss = loss + (1 - share) * functional.cross_entropy(
                guessed, truth[other], label_smoothing=schedule.smoothing
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([*body, *head], 5.0)
            optimiser.step()
            rate.step()
            with torch.no_grad():
                for name, value in network.named_parameters():
                    if name in averaged:
                        averaged[name].lerp_(value, 1 - schedule.average)
            losses.append(loss.item())
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "rate": rate.state_dict()}
        torch.save({**state, "averaged": averaged, "done": epoch + 1}, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
        console.print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    network.mixes_styles = False
    return averaged


def _mixed(made: Tensor, other: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Photos laid over one another with weights, or every second time side by side."""
    if random.random() < 0.5:
        return share * made + (1 - share) * made[other]
    side = made.shape[3]
    cut = round(side * share)
    beside = made.clone()
    if random.random() < 0.5:
        beside[:, :, :, cut:] = made[other][:, :, :, cut:]
    else:
        beside[:, :, cut:, :] = made[other][:, :, cut:, :]
    return beside


def between(start: dict[str, Tensor], learnt: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line from ``start`` to ``learnt``."""
    return {name: torch.lerp(start[name], value, share) for name, value in learnt.items()}


def judged(network: Network, photos: PhotoSet, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits of photos as they are."""
    found = []
    with torch.no_grad():
        for start in range(0, len(chosen), 32):
            found.append(network(values([squeezed(photos.pixels[i], SIDE) for i in chosen[start : start + 32]])))
    return torch.cat(found).numpy()


def likeness(network: Network, photos: PhotoSet, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """The directions in which the ``chosen`` photos differ most, for the embedding: features + 1 x DIRECTIONS."""
    found = []
    with torch.no_grad():
        for start in track(range(0, len(chosen), 32), "likeness"):
            part = [squeezed(photos.pixels[i], SIDE) for i in chosen[start : start + 32]]
            found.append(network.features(values(part)).numpy())
    rows = np.concatenate(found).astype(np.float64)
    middle = rows.mean(0)
    _, strengths, axes = np.linalg.svd(rows - middle, full_matrices=False)
    # Weaker directions count for more than their size says: the first few only tell the classes apart.
    slopes = (axes[:DIRECTIONS] / np.sqrt(strengths[:DIRECTIONS, None] / strengths[0])).T
    return np.vstack([slopes, -middle @ slopes]).astype(np.float32)


def deliver(network: Network, sharpness: float, photos: PhotoSet, target: Path) -> dict[str, Any]:
    """Put the graph together, make it int8, judge the photos kept for validation with it, and write it."""
    slopes = network.head.weight.detach().numpy().T * sharpness
    offsets = network.head.bias.detach().numpy() * sharpness
    alike = likeness(network, photos, np.flatnonzero(~photos.is_val))
    whole = whole_graph(network.body, (slopes, offsets), alike)
    small = int8(whole, "pixels", _samples(photos, 128), ("Conv", "Add", "Clip"))
    kept = np.flatnonzero(photos.is_val)
    session = _session(small)
    chances = np.concatenate(
        [
            session.run(["probabilities"], {"pixels": np.stack([squeezed(photos.pixels[i], SIDE) for i in part])})[0]
            for part in np.array_split(kept, len(kept) // 32)
        ]
    )
    figures = val_figures(chances, photos.labels[kept])
    write(target, "photos", small, {"labels": list(PHOTO_CLASSES), "side": SIDE}, figures)
    return figures


def val_figures(chances: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Figures of each class, of all, and of calibration."""
    found = macro_f1(chances.argmax(1), labels, len(PHOTO_CLASSES))
    return {
        "photos": len(labels),
        "accuracy": round(float((chances.argmax(1) == labels).mean()), 4),
        "macro_f1": round(float(np.mean(found["f1"])), 4),
        "ece": round(calibration_error(chances, labels), 4),
        "classes": {
            name: {figure: round(values[place], 3) for figure, values in found.items()}
            for place, name in enumerate(PHOTO_CLASSES)
        },
    }


def train_photos(
    data: Path, work: Path, target: Path, epochs: int = Schedule.epochs, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """All the steps, the third for ``epochs``; returns the int8 graph's figures on the photos kept to validate.

    With ``leave_out``, names of sources, nothing is written: trained without those, the network is asked what their
    photos show, and the share that it recognises of each class and source is returned.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    console = Console()
    photos = read_photos(data / "photos", work)
    left = np.array([source in leave_out for source in photos.sources])
    chosen, kept = np.flatnonzero(~photos.is_val & ~left), np.flatnonzero(photos.is_val & ~left)
    network = Network(pretrained_body())
    rows = view_features(network, photos, work)
    network.head = fit_head(rows, photos, chosen)
    without = f"-without-{'-'.join(sorted(leave_out))}".replace("/", "_") if leave_out else ""
    bare = bare_pieces(network, photos, chosen, work / f"bare{without}.npy")
    network.head = fit_head(rows, photos, chosen, bare=bare)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    before = val_figures(softmax(judged(network, photos, kept)), photos.labels[kept])
    console.print(f"linear head: macro-F1 {before['macro_f1']}")
    if epochs:
        checkpoint = work / f"network{without}.pt"
        learnt = fine_tune(network, photos, chosen, bare.pieces, Schedule(epochs), checkpoint)
        network.load_state_dict(network.state_dict() | between(start, learnt, KEPT))
    if leave_out:
        figures = recognised(network, photos, np.flatnonzero(left))
    else:
        logits = judged(network, photos, kept)
        figures = deliver(network, fitted_temperature(logits, photos.labels[kept]), photos, target)
    console.print(figures)
    return figures


def recognised(network: Network, photos: PhotoSet, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """By class and source of the ``chosen`` photos: how many there are, and the share that got their class."""
    right = judged(network, photos, chosen).argmax(1) == photos.labels[chosen]
    kinds = [f"{PHOTO_CLASSES[photos.labels[i]]}, {photos.sources[i]}" for i in chosen.tolist()]
    found: dict[str, Any] = {}
    for kind in sorted(set(kinds)):
        these = np.array([each == kind for each in kinds])
        found[kind] = {"photos": int(these.sum()), "recognised": round(float(right[these].mean()), 3)}
    return found

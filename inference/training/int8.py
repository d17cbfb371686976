"""Making networks int8: weights by channel, activations in ranges taken from samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray


def int8(model: onnx.ModelProto, name: str, batches: Iterable[NDArray[Any]], kinds: Sequence[str]) -> onnx.ModelProto:
    """``model`` with its operations of ``kinds`` in int8; each of ``batches`` is given to its input ``name``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    left = iter(batches)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(left, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder:
        source, ready, target = (Path(folder) / each for each in ("source.onnx", "ready.onnx", "target.onnx"))
        onnx.save(model, str(source))
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(kinds),
        )
        return onnx.load(str(target))

"""The network as an ONNX graph, written node by node: batch normalisation folded into the convolutions, then int8.

EfficientNet-Lite has neither squeeze-and-excitation nor swish, and was made to be quantised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.training.photo_network import ROOT_FLOOR


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.count = 0

    def constant(self, value: NDArray[Any]) -> str:
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{self.count}", **attributes))
        return name

    def convolution(self, hidden: str, convolution: Any, normalisation: Any, *, clipped: bool) -> str:
        """A convolution with the batch normalisation behind it folded in, and ReLU6 where there is one."""
        scale = normalisation.weight / (normalisation.running_var + normalisation.eps).sqrt()
        weight = (convolution.weight * scale[:, None, None, None]).detach().numpy()
        bias = (normalisation.bias - normalisation.running_mean * scale).detach().numpy()
        padding = convolution.static_padding
        left, right, top, bottom = padding.padding if hasattr(padding, "padding") else (0, 0, 0, 0)
        hidden = self.node(
            "Conv",
            hidden,
            self.constant(weight),
            self.constant(bias),
            pads=[top, left, bottom, right],
            strides=list(convolution.stride),
            kernel_shape=list(weight.shape[2:]),
            group=convolution.groups,
        )
        if not clipped:
            return hidden
        return self.node("Clip", hidden, self.constant(np.array(0, np.float32)), self.constant(np.array(6, np.float32)))

    def block(self, hidden: str, block: Any) -> str:
        """An inverted bottleneck: wider, depthwise, narrower, and the way around."""
        before, after = hidden, hidden
        arguments = block._block_args
        if arguments.expand_ratio != 1:
            after = self.convolution(after, block._expand_conv, block._bn0, clipped=True)
        after = self.convolution(after, block._depthwise_conv, block._bn1, clipped=True)
        after = self.convolution(after, block._project_conv, block._bn2, clipped=False)
        stride = arguments.stride[0] if isinstance(arguments.stride, list) else arguments.stride
        if stride == 1 and arguments.input_filters == arguments.output_filters:
            after = self.node("Add", after, before)
        return after

    def model(self, results: dict[str, tuple[str, int]]) -> onnx.ModelProto:
        """All of it; ``results`` names each output, and tells what it is and how many columns it has."""
        for name, (result, _) in results.items():
            self.nodes.append(helper.make_node("Identity", [result], [name], name=name))
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "high", "wide", 3])
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", columns])
            for name, (_, columns) in results.items()
        ]
        graph = helper.make_graph(self.nodes, "photos", [pixels], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def whole_graph(
    body: Any, head: tuple[NDArray[np.floating], NDArray[np.floating]], likeness: NDArray[np.floating]
) -> onnx.ModelProto:
    """Pixels as bytes, N x side x side x 3, to ``probabilities`` and ``embedding``.

    ``head``: slopes (features x classes) and offsets of the last layer, calibrated. ``likeness``, features + 1 x
    directions: the directions in which photos differ most, and in the last row minus the middle of all photos; the
    embedding is where a photo lies along them, brought to length one.
    """
    graph = _Graph()
    values = graph.node("Transpose", graph.node("Cast", "pixels", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    shifted = graph.node("Sub", values, graph.constant(np.array(127, np.float32)))
    hidden = graph.node("Mul", shifted, graph.constant(np.array(1 / 128, np.float32)))
    hidden = graph.convolution(hidden, body._conv_stem, body._bn0, clipped=True)
    for block in body._blocks:
        hidden = graph.block(hidden, block)
    hidden = graph.convolution(hidden, body._conv_head, body._bn1, clipped=True)
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", hidden))
    roots = graph.node("Sqrt", graph.node("Add", pooled, graph.constant(np.array(ROOT_FLOOR, np.float32))))
    logits = graph.node("Gemm", roots, *(graph.constant(np.asarray(part, np.float32)) for part in head))
    along = graph.node(
        "Gemm", roots, *(graph.constant(np.asarray(part, np.float32)) for part in (likeness[:-1], likeness[-1]))
    )
    return graph.model(
        {
            "probabilities": (graph.node("Softmax", logits, axis=1), len(head[1])),
            "embedding": (graph.node("LpNormalization", along, axis=1, p=2), likeness.shape[1]),
        }
    )

"""The text classifiers as one ONNX graph over code points: n-gram counts, 1 + log, idf, length one, a layer a task.

Written node by node because common converters split Chinese into words by spaces; this one gives the training
library's own figures (a test holds it to that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def text_graph(
    vocabulary: Sequence[str],
    idf: NDArray[np.floating],
    layers: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    doubts: Mapping[str, float],
) -> onnx.ModelProto:
    """``layers``: for each output, the weights (terms x labels) and offsets of a layer whose softmax is answered.

    ``doubts``: for each output, the share of the probability that is spread evenly over its labels.

    The terms of ``vocabulary`` are one to three characters long. Weights are kept in half precision.
    """
    by_length = [[(term, place) for place, term in enumerate(vocabulary) if len(term) == n] for n in (1, 2, 3)]
    pool = [ord(character) for terms in by_length for term, _ in terms for character in term]
    places = [place for terms in by_length for _, place in terms]
    starts = [0, len(by_length[0]), len(by_length[0]) + 2 * len(by_length[1])]
    constants = [
        numpy_helper.from_array(np.asarray(idf, np.float32), "idf"),
        numpy_helper.from_array(np.float32(1), "one"),
        numpy_helper.from_array(np.float32(1e-12), "tiny"),
    ]
    nodes = [
        helper.make_node(
            "TfIdfVectorizer",
            ["code_points"],
            ["counts"],
            mode="TF",
            min_gram_length=1,
            max_gram_length=3,
            max_skip_count=0,
            ngram_counts=starts,
            ngram_indexes=places,
            pool_int64s=pool,
        ),
        helper.make_node("Max", ["counts", "one"], ["at_least_one"]),
        helper.make_node("Log", ["at_least_one"], ["log"]),
        helper.make_node("Min", ["counts", "one"], ["present"]),
        helper.make_node("Add", ["log", "present"], ["damped"]),
        helper.make_node("Mul", ["damped", "idf"], ["weighted"]),
        helper.make_node("ReduceL2", ["weighted"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["some_length"]),
    ]
    outputs = []
    for name, (weights, offsets) in layers.items():
        constants.append(numpy_helper.from_array(np.asarray(weights, np.float16), f"{name}_half"))
        constants.append(numpy_helper.from_array(np.asarray(offsets, np.float32), f"{name}_offsets"))
        constants.append(numpy_helper.from_array(np.array(1 - doubts[name], np.float32), f"{name}_kept"))
        constants.append(numpy_helper.from_array(np.array(doubts[name] / len(offsets), np.float32), f"{name}_spread"))
        nodes += [
            helper.make_node("Cast", [f"{name}_half"], [f"{name}_weights"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["weighted", f"{name}_weights"], [f"{name}_sums"]),
            # Dividing the few sums by the length costs less than the many terms.
            helper.make_node("Div", [f"{name}_sums", "some_length"], [f"{name}_products"]),
            helper.make_node("Add", [f"{name}_products", f"{name}_offsets"], [f"{name}_logits"]),
            helper.make_node("Softmax", [f"{name}_logits"], [f"{name}_sure"], axis=1),
            helper.make_node("Mul", [f"{name}_sure", f"{name}_kept"], [f"{name}_part"]),
            helper.make_node("Add", [f"{name}_part", f"{name}_spread"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(offsets)]))
    points = helper.make_tensor_value_info("code_points", TensorProto.INT64, ["n", "length"])
    graph = helper.make_graph(nodes, "texts", [points], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model

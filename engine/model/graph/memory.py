"""Peak memory of a graph's activations, predicted from shapes and lifetimes.

Runtimes run nodes in topological order, free a tensor after its last reader and compute pointwise
operators in place where nobody else reads their input. Replaying that with counted bytes gives the
least that a run needs; what a runtime's arenas take beyond it is the runtime's to say.
"""

from __future__ import annotations

import math

import onnx

from engine.errors import ModelError
from engine.geometry.tiling import round_up
from engine.model.graph.operators import POINTWISE
from engine.model.spec import IMAGE, PROBABILITIES, STATISTICS

FLOAT_BYTES = 4  # of float16 as well: on the CPU it is computed in float32
BYTES: dict[int, int] = {onnx.TensorProto.INT8: 1, onnx.TensorProto.UINT8: 1}  # else FLOAT_BYTES
IN_PLACE = POINTWISE - {"Concat"}


def activation_bytes(model: onnx.ModelProto, height: int, width: int, group: int = 1) -> int:
    """Bytes that live at once, beside the weights, while one tile of (height, width) px is run.

    `group`: a runtime that lays out channels in groups fills up the last one behind a convolution.
    """
    sizes = _tensor_bytes(model, height, width, group)
    last = {name: at for at, node in enumerate(model.graph.node) for name in node.input}
    last[PROBABILITIES] = len(model.graph.node)
    live = {IMAGE: sizes.get(IMAGE, 0)}
    peak = live[IMAGE]
    for at, node in enumerate(model.graph.node):
        freed = {name: live[name] for name in node.input if name in live and last[name] == at}
        made = {name: sizes.get(name, 0) for name in node.output}
        taken = sum(made.values())
        if node.op_type in IN_PLACE and max(freed.values(), default=-1) >= taken:
            taken -= max(freed.values())
        if node.op_type == "ConvTranspose":  # multiplies into columns before it adds them up
            taken += sizes.get(node.output[0], 0)
        peak = max(peak, sum(live.values()) + taken)
        live = {name: size for name, size in (live | made).items() if name not in freed}
    return peak


def _tensor_bytes(model: onnx.ModelProto, height: int, width: int, group: int) -> dict[str, int]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name not in (IMAGE, STATISTICS):
            continue  # a weight, which old files have among the inputs as well
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_value = 1
        if len(dims) == 4:
            dims[2].dim_value, dims[3].dim_value = height, width
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the graph has no shapes for {height} x {width} px; export it again"
        ) from error
    convolved = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    sizes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        if value.name in convolved and len(shape) > 1:
            shape[1] = round_up(shape[1], group)
        of_one = BYTES.get(value.type.tensor_type.elem_type, FLOAT_BYTES)
        sizes[value.name] = of_one * math.prod(shape)
    if PROBABILITIES not in sizes:
        raise ModelError(f"the graph has no output named {PROBABILITIES!r}")
    return sizes

"""Shapes of what a graph computes beside its pixels, without touching its weights."""

from __future__ import annotations

import onnx

Shape = tuple[int | None, ...]  # None: not known


def inferred_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the main graph's tensors by ONNX's inference; what it can't tell is not there."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    known = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.dims) <= 1:
            light.graph.initializer.append(tensor)  # axes and shapes
        elif tensor.name not in known:
            kind, dims = tensor.data_type, list(tensor.dims)
            value = onnx.helper.make_tensor_value_info(tensor.name, kind, dims)
            light.graph.input.append(value)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in [*inferred.graph.input, *inferred.graph.value_info]
        if value.type.tensor_type.HasField("shape")
    }

"""One thread, and each network exported once: PyTorch's exporter takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
import torch

import export.onnx


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def exported_once() -> Iterator[None]:
    """Networks of the same shape and input are the same here: all are seeded alike."""
    really, graphs = export.onnx.to_onnx, dict[Any, bytes]()

    def remembered(network: Any, *, softmax: bool) -> onnx.ModelProto:
        shapes = ((name, tuple(p.shape)) for name, p in network.named_parameters())
        key = (softmax, network.input_range, *shapes)
        if key not in graphs:
            graphs[key] = really(network, softmax=softmax).SerializeToString()
        return onnx.load_model_from_string(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.onnx, "to_onnx", remembered)
        yield

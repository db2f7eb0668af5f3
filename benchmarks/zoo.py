"""The bundled model as the BioImage Model Zoo describes one, for `benchmarks.peer`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def described(graph: bytes, stride: int = 16) -> Any:
    """A model description (format 0.5) of a graph that takes a normalised image (1, 1, Y, X)."""
    from bioimageio.spec.model import v0_5

    folder = Path(tempfile.mkdtemp(prefix="stackseg-zoo-"))  # read as long as the process runs
    (folder / "model.onnx").write_bytes(graph)
    (folder / "README.md").write_text("# nuclei\n\n## Validation\n\nSee stackseg.\n")
    np.save(folder / "image.npy", np.full((1, 1, 64, 64), 0.5, np.float32))
    np.save(folder / "probabilities.npy", np.full((1, 2, 64, 64), 0.5, np.float32))
    size = v0_5.ParameterizedSize(min=64, step=stride)
    side = {axis: v0_5.SizeReference(tensor_id="image", axis_id=axis) for axis in ("y", "x")}
    return v0_5.ModelDescr(
        name="nuclei",
        description="The bundled model of stackseg.",
        authors=[v0_5.Author(name="stackseg")],
        cite=[v0_5.CiteEntry(text="stackseg", url="https://example.com")],
        license="BSD-3-Clause",
        documentation=v0_5.FileDescr(source=folder / "README.md"),
        git_repo="https://example.com",
        inputs=[v0_5.InputTensorDescr(
            id="image",
            axes=[v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=["intensity"]),
                  v0_5.SpaceInputAxis(id="y", size=size), v0_5.SpaceInputAxis(id="x", size=size)],
            test_tensor=v0_5.FileDescr(source=folder / "image.npy"),
        )],
        outputs=[v0_5.OutputTensorDescr(
            id="probabilities",
            axes=[v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=["nucleus", "core"]),
                  *(v0_5.SpaceOutputAxis(id=axis, size=one) for axis, one in side.items())],
            test_tensor=v0_5.FileDescr(source=folder / "probabilities.npy"),
        )],
        weights=v0_5.WeightsDescr(
            onnx=v0_5.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=18)
        ),
    )  # fmt: skip

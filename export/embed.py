"""Puts a model's spec into its file."""

from __future__ import annotations

import onnx

from engine.model.spec import METADATA_KEY, ModelSpec


def embed(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put the spec into the file's metadata, as its only entry under its key."""
    others = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    model.metadata_props.add(key=METADATA_KEY, value=spec.model_dump_json())

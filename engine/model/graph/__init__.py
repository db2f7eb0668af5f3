"""Reads an ONNX graph: what it can see, what it needs, and how pixels enter it."""

from engine.model.graph.receptive import ReceptiveField, receptive_field

__all__ = ["ReceptiveField", "receptive_field"]

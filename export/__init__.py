"""Turns a checkpoint into an ONNX file that carries all it needs to be run."""

"""Runtimes behind one interface: `base`, and `registry`, which knows them by name."""

import os

# ONNX Runtime (seen in 1.31) tells its makers what it does, unless that is turned off before it is
# imported. What a lab computes is nobody else's business; a user who wants it sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

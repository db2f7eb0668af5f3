"""ONNX Runtime as it runs on a device, but by its CPU provider: all that takes no GPU is the same.

Batches, page-locked buffers (here common ones), decisions in the graph, and the device's memory in
the plan.
"""

from __future__ import annotations

from typing import Any

from engine.runtimes.base import DeviceMemory, Target
from engine.runtimes.onnxruntime import CPU, OnnxRuntime

PLACE = "tests.engine.device_runtime:DeviceRuntime"


class DeviceRuntime(OnnxRuntime):
    name = "device"

    def resolve_device(self, device: str) -> str:
        return super().resolve_device(device) if device == "abacus" else "host:0"

    def providers(self, target: Target) -> list[Any]:
        return [CPU]

    def device_memory(self, device: str) -> DeviceMemory | None:
        return DeviceMemory("a", 16 * 2**30)

"""TensorRT on NVIDIA's GPUs, as a provider of ONNX Runtime: in float32 or float16.

It builds an engine for one shape of runs, and tries out kernels for that by the clock: two builds
may differ in the last bits. An engine is kept in the user's cache, for one graph, precision,
version and kind of device; its hash is part of what a job is.
"""

from __future__ import annotations

import hashlib
import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import UsageError, install_command
from engine.runtimes import cuda
from engine.runtimes.base import Caution, Compute, Precision, Target
from engine.runtimes.cache import cache_folder
from engine.runtimes.onnxruntime import OnnxRuntime, has_provider, index_of

TENSORRT = "TensorrtExecutionProvider"
# The first three are ONNX Runtime's own. Sub and Div normalise pixels: in float16, raw values
# above 2048 would no longer be told apart, so that CUDA does these in float32.
NOT_IN_FP16 = "NonMaxSuppression,NonZero,RoiAlign,Sub,Div"


class TensorRt(OnnxRuntime):
    """See `engine.runtimes.base.Runtime`."""

    name = "tensorrt"
    title = "TensorRT"
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    cautions = (Caution.OPTIMISED,)  # there is no engine without optimisation
    builds_engines = True
    way_out = f"{install_command('cuda')} and pip install tensorrt, or use --runtime onnxruntime"

    def resolve_device(self, device: str) -> str:
        """As on CUDA: there is no other device."""
        if device == "cpu":
            raise UsageError(
                "device cpu: TensorRT runs on GPUs alone; use --device cuda, or "
                "--runtime onnxruntime"
            )
        return super().resolve_device("cuda" if device == "auto" else device)

    def providers(self, target: Target) -> list[Any]:
        """TensorRT, and CUDA for what it does not have."""
        options: dict[str, Any] = {"device_id": index_of(target)}
        if target.precision == "fp16":
            options |= {"trt_fp16_enable": 1, "trt_op_types_to_exclude": NOT_IN_FP16}
        return [(TENSORRT, options), *super().providers(target)]

    def load(self, graph: bytes, target: Target, threads: int, in_flight: int) -> Compute:
        """A session whose engine is built, or taken from the cache."""
        folder = self._folder(graph, target)
        folder.mkdir(parents=True, exist_ok=True)
        (name, options), *others = self.providers(target)
        cached = {"trt_engine_cache_enable": 1, "trt_engine_cache_path": str(folder)}
        return self.open(graph, [(name, options | cached), *others], target, threads)

    def engine(self, graph: bytes, target: Target) -> str:
        """Hash of the engines in the cache: there is one for each part of the graph."""
        files = sorted(self._folder(graph, target).glob("*.engine"))
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest() if files else ""

    def _folder(self, graph: bytes, target: Target) -> Path:
        what = f"{self.build(target)} {cuda.device_name(index_of(target))} ".encode()
        return cache_folder() / "tensorrt" / hashlib.sha256(what + graph).hexdigest()[:32]

    def _works(self) -> bool:
        with suppress(ImportError):
            importlib.import_module("tensorrt")  # its libraries are found once it has loaded them
        return has_provider(TENSORRT)

"""One contestant of `benchmarks.peers`, in a process of its own.

    python -m benchmarks.peer NAME STACK OUTPUT THREADS MODEL

It prints "ready" once it is warm; then, for each line that it reads, it segments all frames of
STACK into OUTPUT and prints seconds and core-seconds. A contestant reads frames one by one, takes
them through MODEL's network (a U-Net of 16-32-64-128 channels), labels them and writes the labels.
What is written by hand labels the components of the foreground, the cheapest way: the engine does
more (cores where the model has them, measures, levels).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.record import now, since
from engine.geometry.tiling import round_up
from engine.model.file import ModelFile, open_model

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]  # a normalised frame (Y, X) -> foreground (Y, X)
PERCENTILES = (1, 99.8)
CLOSE = 0.01  # mean of a probability: windows that are blended differ by more at their edges
CHANNELS = (16, 32, 64, 128)


def main() -> None:
    name, stack, output, threads, model = sys.argv[1:]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    run = contestant(name, Path(stack), folder, int(threads), model)
    run()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        begin = now()
        taken = run() or since(begin)
        print(*taken, file=answers, flush=True)
    _opened.close()


def contestant(name: str, stack: Path, folder: Path, threads: int, model: str) -> Callable[[], Any]:
    """What segments the stack, by name; see `benchmarks.peers`."""
    if name.startswith("engine "):
        return engine_job(name.removeprefix("engine "), stack, folder, model)
    if name == "dask":
        return partial(dask_graph, stack, folder, threads, open_model(model))
    predict = PREDICTS[name](open_model(model), threads)
    check(predict, stack, model)
    return partial(loop, stack, folder, predict)


# -- by hand ---------------------------------------------------------------------------------------


def loop(stack: Path, folder: Path, predict: Predict) -> None:
    """A script's loop: one frame after the other, labels as a compressed TIFF each."""
    with tifffile.TiffFile(stack) as tif:
        for number, page in enumerate(tif.pages):
            labels = label(predict(normalised(page.asarray())))
            tifffile.imwrite(folder / f"{number:04}.tif", labels, compression="zlib")


def normalised(frame: NDArray[Any]) -> Floats:
    """Percentiles at 0 and 1."""
    low, high = np.percentile(frame, PERCENTILES).astype(np.float32)
    return (frame.astype(np.float32) - low) / (high - low)


def label(foreground: Floats) -> NDArray[np.uint16]:
    """Numbered components of what is above a half."""
    labels = np.empty(foreground.shape, np.uint16)
    ndimage.label(foreground > 0.5, np.ones((3, 3)), output=labels)
    return labels


def padded(frame: Floats, stride: int) -> Floats:
    """A whole number of strides."""
    return np.pad(frame, [(0, -size % stride) for size in frame.shape], mode="reflect")


def check(predict: Predict, stack: Path, name: str) -> None:
    """SystemExit where a contestant does not compute what the model does."""
    frame = normalised(tifffile.imread(stack, key=0))
    model = open_model(name)
    image = padded(frame, model.spec.stride)[None, None]
    wanted = onnx_session(model, 1).run(None, {"image": image})[0][0, 0]
    found = predict(frame)
    wanted = wanted[: found.shape[0], : found.shape[1]]
    if not (apart := float(np.abs(found - wanted).mean())) <= CLOSE:
        raise SystemExit(f"differs by {apart:.2g} in the mean from the model's probabilities")


# -- PyTorch ---------------------------------------------------------------------------------------


def network(model: ModelFile, threads: int) -> Any:
    """A model's network in PyTorch, batch normalisation folded; gives probabilities.

    What its file does not say is read from its graph; `check` sees to it that this went right.
    """
    import onnx
    import torch

    from export.graph import ServedNetwork
    from train.networks import build_network
    from train.settings import TrainSettings

    torch.set_num_threads(threads)
    graph = model.parse().graph
    operators = {node.op_type for node in graph.node}
    settings = TrainSettings(
        data="none", layout="pairs", channels=CHANNELS, instances=model.spec.instances,
        shuffle=2 if "SpaceToDepth" in operators else 1,
        activation="relu" if "Relu" in operators else "relu6",
        input_range=(-1, 4) if "Clip" in operators else None,
    )  # fmt: skip
    args = settings.network(1, settings.n_outputs)
    served = ServedNetwork(build_network(args), softmax=False)
    weights = {w.name: torch.from_numpy(onnx.numpy_helper.to_array(w).copy())
               for w in graph.initializer}  # fmt: skip
    mine = served.state_dict()
    served.load_state_dict({name: weights[name] for name in mine})
    return torch.nn.Sequential(served.network, torch.nn.Sigmoid()).eval()


def eager(model: ModelFile, threads: int) -> Predict:
    """As notebooks do."""
    return torched(network(model, threads), model.spec.stride)


def compiled(model: ModelFile, threads: int, half: bool = False) -> Predict:
    """Compiled with frozen weights, channels last; in bfloat16 with `half`."""
    import torch
    from torch._inductor import config

    config.freezing = True
    found = network(model, threads).to(memory_format=torch.channels_last)
    return torched(torch.compile(found.bfloat16() if half else found), model.spec.stride, half)


def torched(found: Any, stride: int, half: bool = False) -> Predict:
    """Whole frames through a network of PyTorch's."""
    import torch

    def predict(frame: Floats) -> Floats:
        image = torch.from_numpy(padded(frame, stride))[None, None].contiguous(
            memory_format=torch.channels_last
        )
        with torch.inference_mode():
            out = found(image.bfloat16() if half else image)[0, 0].float()
        return out.numpy()[: frame.shape[0], : frame.shape[1]]

    return predict


def monai(model: ModelFile, threads: int, batch: int) -> Predict:
    """MONAI's sliding window: 512 px, overlap of a quarter, Gaussian weights."""
    import torch
    from monai.inferers import SlidingWindowInferer

    found = network(model, threads)
    inferer = SlidingWindowInferer(512, sw_batch_size=batch, overlap=0.25, mode="gaussian")

    def predict(frame: Floats) -> Floats:
        with torch.inference_mode():
            return inferer(torch.from_numpy(frame)[None, None], found)[0, 0].numpy()

    return predict


# -- ONNX ------------------------------------------------------------------------------------------


def single_input(model: ModelFile) -> bytes:
    """A model's graph as others have theirs: a normalised image is all that it takes."""
    import onnx

    parsed = model.parse()
    (statistics,) = [value for value in parsed.graph.input if value.name == "statistics"]
    parsed.graph.input.remove(statistics)
    none = np.array([[[0, 1]]], np.float32)
    parsed.graph.initializer.append(onnx.numpy_helper.from_array(none, "statistics"))
    return parsed.SerializeToString()


def onnx_session(model: ModelFile, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        single_input(model), options, providers=["CPUExecutionProvider"]
    )


def bioimageio(model: ModelFile, threads: int) -> Predict:
    """The model as one of the BioImage Model Zoo, by ONNX Runtime, in one piece."""
    os.environ["LOGURU_LEVEL"] = "ERROR"
    from bioimageio.core import Sample, Tensor, create_prediction_pipeline

    from benchmarks.zoo import described

    pipeline = create_prediction_pipeline(
        described(single_input(model)), weights_format="onnx", devices=["CPUExecutionProvider"]
    )
    pipeline.load()

    def predict(frame: Floats) -> Floats:
        image = Tensor(
            padded(frame, model.spec.stride)[None, None], dims=("batch", "channel", "y", "x")
        )
        sample = Sample(members={"image": image}, stat={}, id=None)
        out = pipeline.predict_sample_without_blocking(sample)
        found = np.asarray(out.members["probabilities"].data)[0, 0]
        return found[: frame.shape[0], : frame.shape[1]]

    return predict


def dask_graph(stack: Path, folder: Path, threads: int, model: ModelFile) -> None:
    """Chunks with an overlap through ONNX Runtime, a chunk for each thread, into a Zarr."""
    import dask
    import dask.array as da

    session = _kept(partial(onnx_session, model, 1))
    stride = model.spec.stride
    halo = round_up(model.spec.receptive_radius, stride)

    def forward(block: Floats) -> Floats:
        image = padded(block[0], stride)[None, None]
        found = session.run(None, {"image": image})[0]
        return found[0, :1, : block.shape[1], : block.shape[2]]

    frames = tifffile.memmap(stack, mode="r")
    frames = frames.reshape(-1, *frames.shape[-2:])
    whole = da.from_array(frames, chunks=(1, *frames.shape[1:]))
    image = whole.map_blocks(lambda b: normalised(b[0])[None], dtype=np.float32)
    chunked = image.rechunk((1, 512, 512))
    depth = {0: 0, 1: halo, 2: halo}
    found = da.map_overlap(forward, chunked, depth=depth, boundary="none", dtype=np.float32)
    joined = found.rechunk((1, *frames.shape[1:]))
    labels = joined.map_blocks(lambda b: label(b[0])[None], dtype=np.uint16)
    with dask.config.set(scheduler="threads", num_workers=threads):
        labels.to_zarr(str(folder / "labels.zarr"), overwrite=True)


_sessions: dict[str, Any] = {}
_opened = ExitStack()  # until the process ends


def _kept(make: Callable[[], Any]) -> Any:
    """A session that is made once, as a global of a script is."""
    if "one" not in _sessions:
        _sessions["one"] = make()
    return _sessions["one"]


# -- the engine ------------------------------------------------------------------------------------


def engine_job(way: str, stack: Path, folder: Path, model: str) -> Callable[[], Any]:
    """A whole job in the way that is called so, from its first block on."""
    from benchmarks.jobs import cost_of, executor, settings_of
    from benchmarks.ways import ways_of

    (found,) = [one for one in ways_of(model, only=[way.split()[1]]) if one.name == way]
    by = _opened.enter_context(executor())
    return partial(cost_of, settings_of(stack, folder / "out", found), by)


def names() -> Iterator[str]:
    """All contestants but the engine."""
    yield from PREDICTS
    yield "dask"


PREDICTS: dict[str, Callable[[ModelFile, int], Predict]] = {
    "eager": eager,
    "compiled fp32": compiled,
    "compiled bf16": partial(compiled, half=True),
    "monai 1": partial(monai, batch=1),
    "monai 4": partial(monai, batch=4),
    "bioimageio": bioimageio,
}

if __name__ == "__main__":
    main()

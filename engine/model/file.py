"""Opens a model: finds it by path or bundled name, checks graph and spec against each other."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from engine.errors import ModelError
from engine.model.graph import ReceptiveField, receptive_field
from engine.model.graph.tensors import is_external, overstates, tensors
from engine.model.spec import (
    IMAGE,
    METADATA_KEY,
    PROBABILITIES,
    STATISTICS,
    ModelSpec,
    parse_spec,
)

EXPORT = "`stackseg export` makes one from a training run"
# What reading a broken graph raises: wrong types and ranks, missing fields, division by zero.
MALFORMED = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class ModelFile:
    """A model that has passed every check."""

    path: Path
    spec: ModelSpec
    sha256: str
    field: ReceptiveField
    data: bytes

    def parse(self) -> onnx.ModelProto:
        """The graph, parsed again: it holds another copy of all weights, so drop it soon."""
        return onnx.load_model_from_string(self.data)

    @property
    def halo(self) -> int | None:
        """Margin in px that makes a tile exact: the radius in whole strides. None: cannot tile."""
        if self.field.radius is None:
            return None
        return -(-self.field.radius // self.spec.stride) * self.spec.stride


def model_without_graph(path: str, sha256: str, spec: ModelSpec) -> ModelFile:
    """A model of which only the spec is known: its kept probabilities are labelled again."""
    field = ReceptiveField(spec.stride, spec.receptive_radius)
    return ModelFile(Path(path), spec, sha256, field, b"")


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.onnx"))


def find_model(reference: str) -> Path:
    """Path of a model given as a file or as a bundled name; ModelError where there is none."""
    path = Path(reference)
    with suppress(OSError, ValueError):  # too long, a loop of links, a null byte: no such file
        if path.is_file():
            return path
        if (path / "best.pt").is_file():
            raise ModelError(
                f"{reference}: is a training run; export it first (`stackseg export {reference} "
                "--output model.onnx`), and give the exported file"
            )
    if reference in bundled_models():
        return BUNDLED / f"{reference}.onnx"
    names = ", ".join(bundled_models()) or "none"
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"{reference}: there is no such file; check the path")
    raise ModelError(f"{reference}: is neither a model file nor a bundled model ({names})")


def open_model(reference: str) -> ModelFile:
    """Read and check a model; ModelError says what is missing or does not fit."""
    path = find_model(reference)
    try:
        data = path.read_bytes()
        proto = onnx.load_model_from_string(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is not an ONNX file; {EXPORT}") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: is not an ONNX file; {EXPORT}")
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in texts:
        raise ModelError(
            f"{path}: carries no stackseg spec in its metadata; "
            "write the model with `stackseg export`"
        )
    spec = parse_spec(texts[METADATA_KEY], str(path))
    try:
        _check_tensors(proto)
        _check_signature(proto, spec)
        field = receptive_field(proto)
        _check_geometry(field, spec)
    except ModelError as error:
        way_out = "" if ";" in str(error) else "; export it again"
        raise ModelError(f"{path}: {error}{way_out}") from error
    except MALFORMED as error:
        # Each is what some field of a broken graph leads to; there are too many to ask for them.
        raise ModelError(
            f"{path}: its graph is malformed ({type(error).__name__}); export it again"
        ) from error
    return ModelFile(path.resolve(), spec, hashlib.sha256(data).hexdigest(), field, data)


def _check_tensors(proto: onnx.ModelProto) -> None:
    for tensor in tensors(proto):
        # A file may name any path as its external data; one that is whole cannot read others.
        if is_external(tensor):
            raise ModelError("keeps weights in other files; export it as a single file")
        if overstates(tensor):
            raise ModelError(f"its tensor {tensor.name!r} claims more values than the file holds")


def _check_signature(proto: onnx.ModelProto, spec: ModelSpec) -> None:
    inputs = {v.name: v for v in proto.graph.input}
    outputs = {v.name: v for v in proto.graph.output}
    wanted = [(IMAGE, inputs), (STATISTICS, inputs), (PROBABILITIES, outputs)]
    if missing := [name for name, values in wanted if name not in values]:
        raise ModelError(f"its graph has no {' and no '.join(missing)}")
    given = {IMAGE, STATISTICS, *(t.name for t in proto.graph.initializer)}
    if unknown := [name for name in inputs if name not in given]:
        raise ModelError(f"its graph needs an input {unknown[0]!r} that the engine does not give")
    for name, values in wanted:
        if values[name].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ModelError(f"its {name} is not float32")
    for name, values, count, what in [
        (IMAGE, inputs, len(spec.channels), "channels"),
        (PROBABILITIES, outputs, spec.n_outputs, "class outputs"),
    ]:
        dims = values[name].type.tensor_type.shape.dim
        if len(dims) != 4 or (dims[1].dim_value and dims[1].dim_value != count):
            raise ModelError(
                f"its spec names {count} {what}, but the graph's {name} does not have that many"
            )
        if any(dims[axis].dim_value for axis in (0, 2, 3)):
            raise ModelError(
                f"the batch or size of its {name} is fixed; export it with dynamic axes"
            )


def _check_geometry(field: ReceptiveField, spec: ModelSpec) -> None:
    if spec.stride % field.stride:
        raise ModelError(
            f"its spec says stride {spec.stride}, but the graph pools by {field.stride}"
        )
    if field.radius is not None and spec.receptive_radius < field.radius:
        raise ModelError(
            f"its spec says a receptive radius of {spec.receptive_radius} px, but the graph sees "
            f"{field.radius} px"
        )

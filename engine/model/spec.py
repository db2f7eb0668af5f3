"""The ONNX contract: what a model file must hold so that the engine can run it.

Graph:  image       float32 (N, C, H, W)  raw pixel values, H and W multiples of `stride`
        statistics  float32 (N, C, 2)     the frame's low and high value, see `Normalisation`
     -> probabilities float32 (N, K, H, W)  one foreground class: its sigmoid, K = 1; and with
                                            `cores` that of its objects' cores, K = 2;
                                            several: softmax over them, background first

All else that is needed travels as a `ModelSpec`, JSON under the metadata key "stackseg".
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from engine.errors import ModelError

METADATA_KEY = "stackseg"
IMAGE, STATISTICS, PROBABILITIES = "image", "statistics", "probabilities"

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a model, and of an image of labels: names of files

PixelType = Literal["uint8", "uint16", "int16", "float32"]


def pixel_type(dtype: str) -> str:
    """As what a network takes pixels that are read as `dtype`: wider integers as float32."""
    return dtype if dtype in get_args(PixelType) else "float32"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassSpec(_Frozen):
    """One class of a model: its name and its colour in pictures and viewers."""

    name: Annotated[str, Field(min_length=1)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Normalisation(_Frozen):
    """How a frame's intensity statistics are taken; the graph applies (x - low) / (high - low).

    "percentile": low and high are percentiles of the whole frame, channel by channel, by the
    inverted-CDF rule (an observed value, never an interpolated one).
    "range": low and high are fixed pixel values, the same for every frame.

    Before either, pixels are limited to `window`, if there is one: to its least and its greatest
    value (`engine.model.statistics.windowed`).
    """

    policy: Literal["percentile", "range"] = "percentile"
    low: float = 1.0
    high: float = 99.8
    window: tuple[FiniteFloat, FiniteFloat] | None = None  # least and greatest pixel value

    @model_validator(mode="after")
    def _ordered(self) -> Normalisation:
        if not self.low < self.high:
            raise ValueError(f"normalisation low {self.low} is not below high {self.high}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"the window {self.window} has no width")
        if self.policy == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise ValueError("normalisation percentiles must lie in 0..100")
        return self


class CoreSpec(_Frozen):
    """How objects are made of cores, each grown inside the foreground by a few pixels.

    A core is what of an object lies deeper than `depth` below its edge, so that the cores of
    objects that touch do not touch. See `engine.labels.cores`.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8  # of the core's probability
    depth: Annotated[float, Field(ge=0)] = 2.0  # px; as the network was taught
    growth: Annotated[int, Field(ge=1, le=16)] = 3  # px; how far a core grows at the most
    unreached: Literal["keep", "drop"] = "drop"  # foreground beyond the growth of any core
    pinhole: Annotated[int, Field(ge=0, le=32)] = 6  # px; holes that fit into such a box are filled


class LoweredSpec(_Frozen):
    """How a model came to compute in less than float32, and how its labels agree with float32."""

    precision: Literal["int8", "fp16"]
    source: str  # SHA-256 of the file in float32
    converter: str
    stacks: tuple[str, ...]  # whose frames calibrated and judged it
    seed: int  # that parted the two
    calibrated_by: Annotated[int, Field(ge=0)]  # frames
    judged_by: Annotated[int, Field(ge=1)]  # other frames
    left_in_fp32: tuple[str, ...] = ()  # convolutions
    fine_tuned: Annotated[int, Field(ge=0)] = 0  # steps in which weights learnt to be rounded
    f1: FiniteFloat | None = None  # of the labels against float32, at IoU 0.9


class CurvePoint(_Frozen):
    """What a threshold and a minimum area reach on the validation part; the model's were chosen so.

    Scores as `stackseg train` counts them: IoU of all foreground pixels; means over frames of SEG
    and of F1 of objects, at IoU 0.5 to 0.9 and at 0.5.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)]
    core_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # of models with cores
    min_area: Annotated[int, Field(ge=0)]  # px
    iou: FiniteFloat | None = None  # None where nothing defines it
    seg: FiniteFloat | None = None
    f1: FiniteFloat | None = None
    f1_50: FiniteFloat | None = None


class ModelSpec(_Frozen):
    """Everything about a model that the graph itself does not say."""

    spec_version: Literal[1, 2] = 2  # cores came with version 2
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    description: str = ""
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2)]  # background first
    normalisation: Normalisation = Normalisation()
    stride: Annotated[int, Field(ge=1)]  # px; tile origins and sizes are multiples of it
    receptive_radius: Annotated[int, Field(ge=0)]  # px beyond a write window that can matter
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of probability; binary models
    instances: Literal["components", "watershed", "cores", "none"] = "components"  # binary models
    cores: CoreSpec | None = None  # of binary models with a second output
    min_area: Annotated[int, Field(ge=0)] = 0  # px; smaller objects are dropped
    min_distance: Annotated[float, Field(ge=0)] = 0.0  # px between the seeds of a watershed
    pixel_size_um: Annotated[float, Field(gt=0)] | None = None  # of the training images
    input_dtypes: tuple[PixelType, ...] = ("uint8", "uint16", "int16", "float32")
    trained_on: str = ""
    scores: dict[str, FiniteFloat] = {}  # those that are defined
    threshold_curve: tuple[CurvePoint, ...] = ()  # where threshold and min_area were chosen
    lowered: LoweredSpec | None = None  # None: float32, as it was trained
    hashes: dict[str, str] = {}  # of "data", "code" and "settings"
    created_with: str = ""  # "stackseg 0.1.0"

    @property
    def is_int8(self) -> bool:
        """Whether it was lowered to int8."""
        return self.lowered is not None and self.lowered.precision == "int8"

    @property
    def is_binary(self) -> bool:
        """One foreground class behind a sigmoid."""
        return len(self.classes) == 2

    @property
    def n_outputs(self) -> int:
        """Channels of the probability output."""
        return self.n_class_outputs + (self.cores is not None)

    @property
    def n_class_outputs(self) -> int:
        """Those that tell classes; that of cores comes after them."""
        return 1 if self.is_binary else len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes by their number, background first."""
        return tuple(one.name for one in self.classes)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"class names repeat: {', '.join(names)}")
        if self.cores is not None and not (self.is_binary and self.spec_version > 1):
            raise ValueError("cores are of binary models, and of spec version 2 on")
        if self.instances == "cores" and self.cores is None:
            raise ValueError("instances by cores need an output of cores")
        return self


def parse_spec(text: str, where: str) -> ModelSpec:
    """The ModelSpec in `text` (JSON); ModelError names `where` and the first thing wrong."""
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the spec"
        raise ModelError(
            f"{where}: its stackseg spec is not valid ({field}: {first['msg']}); export it again"
        ) from None


def label_path(spec: ModelSpec) -> str:
    """Path of the label image inside a result."""
    return f"labels/{spec.name}"


def objects_path(spec: ModelSpec) -> str:
    """Path of the objects of classes, beside the class map."""
    return f"{label_path(spec)}-objects"

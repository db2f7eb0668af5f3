"""All settings of a training run: declared, explained and checked here, saved with its results."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from engine.model.spec import Normalisation
from engine.truth.palette import Palette, PaletteClass, read_palette
from train.networks import Activation, NetworkArgs, Norm, Up
from train.policies import POLICIES, AugmentSettings

CHANNELS = {
    "unet": (16, 32, 64, 128),
    "unet-resnet18": (16, 32, 64, 128, 256),
    "unet-transfer": (64, 128, 256, 512, 1024),
}
DROPOUT = {"unet-transfer": 0.2}
RATES = {"adamw": 2e-3, "adam": 2e-3, "sgd": 1e-2}
Fraction = Annotated[float, Field(ge=0, lt=1)]
Truth = Literal["silver", "gold", "both"]


def _policy(value: Any) -> Any:
    """The settings of a policy, where its name is given."""
    return POLICIES.get(value, value) if isinstance(value, str) else value


def _palette(value: Any) -> Any:
    """The palette of a file or a name, where that is given."""
    return read_palette(value) if isinstance(value, str) else value


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSettings(_Frozen):
    """One training run. Saved in every checkpoint and as `settings.json`.

    Messages have names of fields in backticks, which the command turns into options.
    """

    data: str
    """Folder with images and their truth."""
    layout: Literal["ctc", "pairs", "color-masks"]
    """How the folder is laid out: Cell Tracking Challenge, images/ and labels/, or images/ and
    masks/ whose colours are classes."""
    palette: Annotated[Palette | None, BeforeValidator(_palette)] = None
    """Which colours of the masks are which classes; also a file or the name of a palette. Layout
    color-masks only."""
    frames: tuple[int, int] | None = None
    """Frame numbers to use, first included, last not; all where None. Layout ctc only."""
    sequences: tuple[str, ...] | None = None
    """Sequences to use, "01"; all where None. Layout ctc only."""
    truth: Truth | None = None
    """Truth of layout ctc: silver, gold, or silver under gold. Where None, a sequence's silver
    truth, or its gold truth if it has no other."""
    group: str | None = None
    """Pattern on a file's name; files whose first group (or match) agrees are never split apart."""
    masks: bool = False
    """Whether the truth is of masks, whose 8-connected pieces are the objects, not of ids."""
    ignore_label: Annotated[int, Field(ge=1)] | None = None
    """Number in the truth of pixels that neither teach nor score."""
    channel: str | None = None
    """Channels of the images to learn from, by number or name as `segment --channel` takes them;
    all where None."""
    ignore_border: Annotated[int, Field(ge=0)] = 0
    """Margin of a frame left out of loss and scores, px."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the groups that chooses the best epoch, thresholds and minimum area."""
    test_fraction: Fraction = 0.0
    """Share of the groups held back before anything else and never used by training."""
    test_every: Annotated[int, Field(ge=2)] | None = None
    """Hold back every Nth frame of each group instead: a test of more of the same only."""
    synthetic: Annotated[int, Field(ge=0)] = 0
    """Synthetic frames of nuclei added to the training part; a quarter as many to validation."""
    synthetic_share: Fraction = 0.4
    """Share of training patches that are cut from synthetic frames, where there are any."""
    normalisation: Normalisation = Normalisation()
    """How a frame's intensity statistics are taken."""
    channel_names: tuple[str, ...] = ()
    """Names of the image's channels; where empty, "intensity", or "channel 1" and so on."""
    class_name: Annotated[str, Field(min_length=1)] = "foreground"
    """Name of what is segmented: "nucleus"."""

    instances: Literal["cores", "components", "none"] = "cores"
    """How objects are told apart: by cores, for which the network has a second output, or by a gap
    that it learns to leave between them; or not at all."""
    core_depth: Annotated[float, Field(gt=0)] = 2.0
    """How far below the edge of an object its core begins, px; with cores."""
    growth: Annotated[int, Field(ge=1, le=16)] = 5
    """How far cores are grown inside the foreground to be objects, px; with cores."""
    pinhole: Annotated[int, Field(ge=0, le=32)] = 6
    """Holes that fit into a box of this side are filled, px; with cores."""
    unreached: Literal["keep", "drop"] = "drop"
    """What becomes of foreground that no core reaches: objects of its own, or background."""

    arch: Literal["unet", "unet-resnet18", "unet-transfer"] = "unet"
    """Network architecture. unet-resnet18 has `channels` and `up` of the options below;
    unet-transfer has `dropout` and `activation` as well."""
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default_factory=lambda values: CHANNELS[values.get("arch", "unet")], min_length=1
    )
    """Channels of each level of the network, or of a ResNet's decoder, finest first."""
    norm: Norm = "batch"
    """Normalisation after each convolution."""
    conv_bias: bool = False
    """Whether convolutions have biases beside those of the batch normalisation after them."""
    dropout: Fraction = Field(
        default_factory=lambda values: DROPOUT.get(values.get("arch", "unet"), 0.0)
    )
    """Share of values dropped at the end of the contracting path; of unet-transfer, at the end of
    each level of the decoder."""
    up: Up = "transposed"
    """How a level becomes twice as fine: a transposed 2x2 convolution, or interpolation and 1x1."""
    head_kernel: Literal[1, 3] = 1
    """Side of the output layer's convolution, px."""
    shuffle: Literal[1, 2, 4] = 1
    """Pixels of the image along one of the finest level: 2 is the network at half resolution."""
    activation: Activation = "relu"
    """relu, or relu6, which ends at 6: 8-bit networks like a bounded range."""
    input_range: tuple[float, float] | None = (-1.0, 4.0)
    """What normalised pixels are clipped to, where 0 is low and 1 is high; None: not at all."""

    pretrained: str | None = None
    """Weights that the encoder of unet-resnet18 starts from: "imagenet", or a file with a state
    dict of torchvision's resnet18. Fresh weights where None."""
    transfer: str | None = None
    """Where the encoder of unet-transfer comes from: a run's folder, a checkpoint, or a Keras file
    (.h5, .keras). Fresh weights where None."""
    transfer_white: Annotated[float, Field(gt=0)] = 1.0
    """What a white pixel was to that encoder when it was trained: 255 of 8-bit pixels that were not
    scaled. Here white is 1."""
    freeze_encoder: Annotated[int, Field(ge=0)] = 0
    """First epochs in which the encoder of unet-resnet18 or unet-transfer, with its batch
    statistics, stays as it is."""
    unfreeze: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]], ...] = ()
    """Pairs of an epoch, from 1, and a level of the encoder of unet-transfer, 0 the finest, which
    learns from that epoch on. Where any are given, all other levels stay as they are."""
    encoder_lr: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the encoder of unet-resnet18 or unet-transfer; that of all where
    None."""
    init: str | None = None
    """What to start from: the folder of an earlier run (its best weights), or an exported model, by
    its file or a bundled name. Fresh weights where None."""
    teachers: tuple[str, ...] = ()
    """Folders of earlier runs whose predictions are learnt beside the truth."""
    teacher_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the target that is theirs, where there are any."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs to train; after each the network is scored on the validation part."""
    steps_per_epoch: Annotated[int, Field(ge=1)] = 200
    """Optimiser steps per epoch; patches are drawn at random, with replacement."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Patches per step."""
    patch: Annotated[int, Field(ge=8)] = 192
    """Side of a patch, px; a multiple of the network's stride."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are averaged for one step: batch * accumulate patches a step."""

    loss: Literal["bce", "ce", "dice", "bce+dice", "ce+dice"] = Field(
        default_factory=lambda values: "ce+dice" if values.get("palette") else "bce+dice"
    )
    """What is minimised: weighted cross entropy (bce of objects, ce of classes), soft Dice, or
    both."""
    dice: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the soft Dice loss beside the cross entropy."""
    class_weights: Literal["auto"] | tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight in the cross entropy of each class, background first; "auto": the inverse root of its
    share of the training part's pixels, background's being 1. All alike where None."""
    foreground_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight in the cross entropy of pixels that are to be found, relative to background: w_c."""
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    """What moves the weights; sgd has a momentum of 0.99."""
    lr: Annotated[float, Field(gt=0)] = Field(
        default_factory=lambda values: RATES[values.get("optimiser", "adamw")]
    )
    """Peak learning rate."""
    schedule: Literal["cosine", "one-cycle", "step", "constant"] = "cosine"
    """Course of the learning rate; all but one-cycle are warmed up over 100 steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay; of adamw apart from the gradient, of adam and sgd as part of it."""
    ema: Fraction = 0.0
    """Decay of an exponential average of the weights, which is then what is validated, kept and
    exported; 0: no average."""
    border_weight: Annotated[float, Field(ge=0)] = 10.0
    """w0 of the border weight map."""
    border_sigma: Annotated[float, Field(gt=0)] = 5.0
    """sigma of the border weight map, px."""
    augment: Annotated[AugmentSettings, BeforeValidator(_policy)] = POLICIES["light"]
    """How training patches are varied; also the name of a policy: strong, light, source or none."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, patches and synthetic frames."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA where there is a device."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; auto takes bf16 where the processor multiplies matrices in it. fp16
    is for CUDA."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that cut and vary patches during training; 0: the training process does."""
    strip_every: Annotated[int, Field(ge=0)] = 5
    """Epochs after which predictions are drawn beside the truth, and after the last; 0: never."""

    @property
    def classes(self) -> tuple[PaletteClass, ...]:
        """The classes that are told apart, background first; none where objects are."""
        return () if self.palette is None else self.palette.classes

    @property
    def n_outputs(self) -> int:
        """Channels of logits: the foreground, and with cores these; or of every class, of two the
        second alone."""
        if self.classes:
            return len(self.classes) if len(self.classes) > 2 else 1
        return 2 if self.instances == "cores" else 1

    @property
    def stride(self) -> int:
        """Coarsest grid of the network, px: each level but the first halves the resolution."""
        halvings = len(self.channels) - (self.arch != "unet-resnet18")
        return int(self.shuffle * 2**halvings)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network takes statistics of batches, for which one value is too few."""
        return self.arch != "unet" or self.norm == "batch"

    def network(self, n_in: int, n_out: int) -> NetworkArgs:
        """The network for images of `n_in` channels, with `n_out` channels of logits."""
        return NetworkArgs(
            self.arch,
            n_in,
            n_out,
            self.channels,
            norm=self.norm,
            conv_bias=self.conv_bias,
            dropout=self.dropout,
            up=self.up,
            head_kernel=self.head_kernel,
            shuffle=self.shuffle,
            activation=self.activation,
            input_range=self.input_range,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.arch == "unet-resnet18":
            self._check_resnet()
        elif self.pretrained is not None:
            raise ValueError("`pretrained` is for `arch` unet-resnet18")
        if self.arch == "unet" and (self.freeze_encoder or self.encoder_lr is not None):
            raise ValueError(
                "`freeze_encoder` and `encoder_lr` are for `arch` unet-resnet18 and unet-transfer"
            )
        self._check_transfer()
        if self.patch % self.stride:
            nearest = max(round(self.patch / self.stride), 1) * self.stride
            raise ValueError(
                f"`patch` {self.patch} is not a multiple of the network's stride {self.stride}; "
                f"use {nearest}"
            )
        if self.batch == 1 and self.patch == self.stride and self.has_batch_norm:
            raise ValueError(
                f"one patch of {self.patch} px is a single value at the coarsest level, and batch "
                f"normalisation needs two or more; use `patch` {2 * self.patch}, or `batch` 2"
            )
        if self.test_every is not None and self.test_fraction:
            raise ValueError(
                "`test_every` and `test_fraction` both say what is held back; give one"
            )
        if self.growth < self.core_depth:
            raise ValueError(
                f"`growth` {self.growth} does not bring cores back to the edge, which is "
                f"{self.core_depth:g} px away; use {math.ceil(self.core_depth) + 1}"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("`val_fraction` and `test_fraction` leave nothing to train on")
        self._check_palette()
        for name in ("frames", "sequences", "truth"):
            if getattr(self, name) is not None and self.layout != "ctc":
                raise ValueError(f"`{name}` can be chosen in `layout` ctc only")
        if self.frames is not None and not 0 <= self.frames[0] < self.frames[1]:
            raise ValueError(f"`frames` {self.frames[0]}:{self.frames[1]} hold no frame")
        return self

    def _check_palette(self) -> None:
        """ValueError where options are of classes and the layout isn't, or the other way round."""
        of_classes = self.layout == "color-masks"
        if not of_classes and (self.palette is not None or self.class_weights is not None):
            raise ValueError("`palette` and `class_weights` are for `layout` color-masks")
        if of_classes and self.palette is None:
            raise ValueError(
                "`layout` color-masks needs a palette, which says which colours are which classes; "
                "give `palette`"
            )
        losses = ("ce", "dice", "ce+dice") if of_classes else ("bce", "dice", "bce+dice")
        if self.loss not in losses:
            raise ValueError(
                f"`loss` {self.loss} is not one of {'classes' if of_classes else 'objects'}; "
                f"use {', '.join(losses)}"
            )
        if self.palette is None:
            return
        given = self.class_weights
        if isinstance(given, tuple) and len(given) != len(self.classes):
            raise ValueError(
                f"`class_weights` has {len(given)} numbers for {len(self.classes)} classes "
                f"({', '.join(self.palette.names)}); give one for each"
            )
        for name in ("masks", "ignore_label", "synthetic", "teachers"):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` is for truth of objects, and not for `layout` color-masks"
                )

    def _check_resnet(self) -> None:
        """ValueError where options do not fit unet-resnet18, or each other."""
        if len(self.channels) != len(CHANNELS[self.arch]):
            raise ValueError(
                f"the decoder of {self.arch} has {len(CHANNELS[self.arch])} levels, and `channels` "
                f"has {len(self.channels)}"
            )
        self._refuse_options_of_unet("norm", "conv_bias", "head_kernel", "shuffle", "activation")
        if self.dropout:
            raise ValueError(f"`dropout` is for `arch` unet, and not for {self.arch}")
        if self.pretrained is not None and self.init is not None:
            raise ValueError("`pretrained` and `init` both say where to start; give one of them")
        if self.freeze_encoder and self.pretrained is None and self.init is None:
            raise ValueError(
                "`freeze_encoder` would keep an encoder that has learnt nothing; give "
                "`pretrained` or `init` as well"
            )

    def _check_transfer(self) -> None:
        """ValueError where options do not fit unet-transfer, or each other."""
        if self.transfer_white != 1 and self.transfer is None:
            raise ValueError(
                "`transfer_white` is of a transferred encoder; give `transfer` as well"
            )
        if self.arch != "unet-transfer":
            if self.transfer is not None or self.unfreeze:
                raise ValueError("`transfer` and `unfreeze` are for `arch` unet-transfer")
            return
        self._refuse_options_of_unet("norm", "conv_bias", "head_kernel", "shuffle")
        if self.transfer is not None and self.init is not None:
            raise ValueError("`transfer` and `init` both say where to start; give one of them")
        if self.unfreeze and self.freeze_encoder:
            raise ValueError("`unfreeze` and `freeze_encoder` both say what is frozen; give one")
        if (self.unfreeze or self.freeze_encoder) and self.transfer is None and self.init is None:
            raise ValueError(
                "an encoder that has learnt nothing would be frozen; give `transfer` or `init` as "
                "well"
            )
        for epoch, level in self.unfreeze:
            if level >= len(self.channels):
                raise ValueError(
                    f"`unfreeze` {epoch}:{level} names level {level}, and the encoder has levels 0 "
                    f"to {len(self.channels) - 1}"
                )

    def _refuse_options_of_unet(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is for `arch` unet, and not for {self.arch}")

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return self.model_dump(mode="json")

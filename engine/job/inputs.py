"""The inputs of a job, opened: each stack that can be segmented, and why the others cannot."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.errors import StackError, UsageError, plural, printable
from engine.geometry.layout import LabelLayout, make_layout
from engine.labels.postprocessing import Postprocessing
from engine.model.file import ModelFile
from engine.model.spec import ModelSpec, pixel_type
from engine.plan.channels import choose_channels, measured_channels
from engine.plan.inputs import Input, Inputs
from engine.plan.postprocessing import check_uncut, resolve_postprocessing
from engine.plan.settings import JobSettings
from engine.plan.window import resolve_window
from engine.stacks.base import Stack, StackInfo
from engine.stacks.guard import some
from engine.stacks.inputs import NAME_MAX, expand_inputs, given_path, without_suffix
from engine.stacks.open import open_stacks
from engine.steps.hangs import ADVICE, MAX_HUNG_INPUTS, Hung, within
from engine.steps.limited import LimitedStack
from engine.steps.missing import check_stack


def open_inputs(settings: JobSettings, model: ModelFile) -> Inputs:
    """Open every input; StackError where none can be segmented."""
    opening = _Opening(settings, model)
    for path in expand_inputs(settings.inputs):
        opening.add(path)
    opening.note_missing_files()
    opening.note_short_stacks()
    refused = opening.refused
    if not opening.opened:
        reasons = list(dict.fromkeys(reason for _, reason in refused))
        if len(reasons) == 1:
            raise StackError(reasons[0])
        listed = some(reasons, "; ")
        raise StackError(f"none of the {len(refused)} inputs can be opened: {listed}")
    return Inputs(tuple(opening.opened), tuple(refused), tuple(dict.fromkeys(opening.notes)))


class _Opening:
    """Opens one input after the other, and knows those before."""

    def __init__(self, settings: JobSettings, model: ModelFile) -> None:
        self.opened: list[Input] = []
        self.refused: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._settings, self._model = settings, model
        self._paths: set[str] = set()
        self._real: dict[str, str] = {}  # where each path leads to
        self._sets: dict[object, str] = {}  # images that several files hold: by which file given
        self._of_sets: list[tuple[int, Stack]] = []  # number in `opened`
        self._hung: Counter[str] = Counter()  # by folder: inputs in a row that did not open

    def add(self, path: str) -> None:
        """Open the stacks at a path; what cannot be segmented is refused with a sentence."""
        try:
            stacks = self._open(path)
            for stack in stacks:
                with LimitedStack(stack, self._settings.timeout) as limited:
                    self._add_stack(path, stack, limited)
            if stacks:
                self._hung.pop(_folder(path), None)
        except Hung as error:
            self._hung[_folder(path)] += 1
            self._refuse(path, f"could not be opened within {error.seconds:g} s; {ADVICE}")

    def _open(self, path: str) -> list[Stack]:
        """The stacks at a path; none where it was opened before, or is refused."""
        timeout = self._settings.timeout
        try:
            _check_name(path)
            self._check_folder(path)
            # What lies on a mount that is gone may not even be looked at.
            if (plain := within(timeout, partial(given_path, path))) in self._paths:
                return []
            self._paths.add(plain)
            self._real[path], stacks = within(timeout, partial(_opened, path, self._settings))
            return stacks
        except (StackError, UsageError) as error:
            self.refused.append((printable(path), str(error)))
        except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a name too long
            self._refuse(path, f"cannot be opened ({error})")
        return []

    def _add_stack(self, path: str, stack: Stack, limited: LimitedStack) -> None:
        info = stack.info
        try:
            # Of a set, where it has several; links to one of them are inputs of their own.
            files = limited.within(lambda stack: stack.files)
            images = (files, info.series, info.shape)
            first = self._sets.get(images, path) if files else path
            if self._real[first] != self._real[path]:
                self.notes.append(f"{path}: is one of the files of {first}, and read with it")
                return
            _check_result_name(path)
            read = partial(_readable, settings=self._settings, model=self._model)
            others = limited.within(lambda stack: stack.companions())
            self.opened.append(limited.within(read))
        except (StackError, UsageError) as error:
            self.refused.append((printable(path), str(error)))
            return
        if files:
            self._sets.setdefault(images, path)
        if others:
            self._of_sets.append((len(self.opened) - 1, stack))
        notes = [*info.unused]
        if info.lacking:
            notes.append("its metadata count planes that are missing; --frames leaves them out")
        if info.min_is_white:
            notes.append("0 is white in it; its values are inverted")
        self.notes += [f"{path}: {note}" for note in notes]

    def note_missing_files(self) -> None:
        """Note the images of sets in files that are no inputs, once all inputs are known."""
        given = set(self._real.values())
        for number, stack in self._of_sets:
            missing = stack.companions(given)
            info = self.opened[number].info
            info = replace(info, unused=(*info.unused, *missing))
            self.opened[number] = replace(self.opened[number], info=info)
            self.notes += [f"{info.path}: {note}" for note in missing]

    def note_short_stacks(self) -> None:
        """Note in one sentence which stacks have fewer frames than --frames asks for."""
        first, last = self._settings.frames
        short = {}
        for one in self.opened:
            n = one.info.size(_frame_axis(one.info) or "T")
            if (last or 0) > n or -(first or 0) > n:
                short[one.info.path] = n
        if short:
            given = ":".join("" if v is None else str(v) for v in (first, last))
            listed = some(
                [f"{path} has {plural(n, 'frame')}" for path, n in short.items()], limit=3
            )
            self.notes.append(f"--frames {given}: there are fewer ({listed})")

    def _check_folder(self, path: str) -> None:
        """StackError where inputs of the same folder hang: 100 would take 100 times the limit."""
        if self._hung[_folder(path)] >= MAX_HUNG_INPUTS:
            raise StackError(
                f"{path}: was not tried, since {MAX_HUNG_INPUTS} inputs of its folder before it "
                f"could not be opened in time; {ADVICE}"
            )

    def _refuse(self, path: str, reason: str) -> None:
        self.refused.append((printable(path), f"{printable(path)}: {reason}"))


def _opened(path: str, settings: JobSettings) -> tuple[str, list[Stack]]:
    """Where a path leads to, and the stacks there."""
    stacks = open_stacks(path, settings.axes, settings.series)
    return os.path.realpath(path), stacks


def _readable(stack: Stack, settings: JobSettings, model: ModelFile) -> Input:
    """A stack that can be segmented; StackError or UsageError where it cannot."""
    info = stack.info
    if settings.missing_chunks == "fail":
        check_stack(stack)
    _check_pixels(info, model.spec)
    channels = choose_channels(info, settings.channel, model.spec)
    measured = measured_channels(info, settings.measure)
    read = range(info.size("C")) if settings.with_image else sorted({*channels, *measured})
    postprocessing = resolve_postprocessing(settings, model.spec, info)
    layout = _layout(info, settings, model, postprocessing)
    if layout.is_cut:
        check_uncut(postprocessing, info)
    (n_t, n_z), t, z = layout.sizes[:2], layout.t0, layout.z0
    if stack.lacks(range(t, t + n_t), range(z, z + n_z)):
        raise StackError(info.lacking)
    return Input(
        info,
        given_path(info.path),
        channels,
        measured,
        tuple(read),
        postprocessing,
        layout,
        window=resolve_window(settings.window, model.spec, info),
        identifiers=stack.identifiers() if settings.keep_identifiers else {},
    )


def _folder(path: str) -> str:
    """The folder that an input lies in, without looking at it."""
    return os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 - Path drops no ".."


def _check_name(path: str) -> None:
    if not path:
        raise StackError("an INPUT is empty; give the path of a stack")
    if printable(path) != path:
        raise StackError(f"{printable(path)}: its name is not UTF-8; rename it, or link to it")


def _check_result_name(path: str) -> None:
    """StackError where no file system would take the name of the result."""
    size = len(f"{without_suffix(Path(path)).name}.zarr".encode())
    if size > NAME_MAX:
        raise StackError(
            f"{path}: its name is too long: that of its result would have {size} bytes, and may "
            f"have {NAME_MAX}; rename it, or link to it by a shorter name"
        )


def _check_pixels(info: StackInfo, spec: ModelSpec) -> None:
    if pixel_type(info.dtype) not in spec.input_dtypes:
        takes = ", ".join(spec.input_dtypes)
        raise StackError(f"{info.path}: has pixels of {info.dtype}, and {spec.name} takes {takes}")


def _frame_axis(info: StackInfo) -> str | None:
    """The axis along which --frames selects; None where there is a single frame."""
    return next((axis for axis in "TZ" if info.size(axis) > 1), None)


def _layout(
    info: StackInfo, settings: JobSettings, model: ModelFile, postprocessing: Postprocessing
) -> LabelLayout:
    axes = info.axes.replace("C", "")
    sizes = {axis: info.size(axis) for axis in axes}
    origin = {"T": 0, "Z": 0}
    if settings.frames != (None, None):
        along = _frame_axis(info)
        if along is None:
            raise UsageError(f"{info.path}: is a single frame, which --frames cannot select from")
        first, last, _ = slice(*settings.frames).indices(sizes[along])
        if first >= last:
            given = ":".join("" if v is None else str(v) for v in settings.frames)
            raise UsageError(
                f"{info.path}: --frames {given} selects nothing of its {sizes[along]} frames"
            )
        sizes[along], origin[along] = last - first, first
    if settings.connect == "z" and "Z" not in axes:
        raise StackError(f"{info.path}: has no Z axis for --connect z; omit it, or give --axes")
    return make_layout(
        axes,
        tuple(sizes[axis] for axis in axes),
        instances=not postprocessing.gives_classes,
        first=(origin["T"], origin["Z"]),
        connect_z=settings.connect == "z",
        whole_frames=model.halo is None and settings.halo is None,
    )

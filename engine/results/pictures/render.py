"""Render a result as a movie, a GIF or a picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError
from engine.results.pictures import files as pictures
from engine.results.pictures.caption import ScaleBar, scale_bar
from engine.results.pictures.image import open_image
from engine.results.pictures.panels import GAP
from engine.results.pictures.sampling import Shape
from engine.results.pictures.scene import Scene, Style, View, movie_limits, panels_of
from engine.results.planes import Planes
from engine.results.result import ResultStack, choose_stack, open_result
from engine.store.files import check_free, whole_file

log = logging.getLogger("stackseg")

Progress = Callable[[int, int], None]  # how many are done, and how many there are

KINDS = (".mp4", ".gif", ".png")
SHEET = 36  # pictures in a contact sheet, at most
LEAST = 256  # px across which a panel is drawn by default: smaller frames are enlarged
MOST = {".mp4": 4096, ".gif": 1200, ".png": 4096}  # px of a whole picture's sides, by default
CELL = 480  # px across which a panel of a contact sheet is drawn by default


@dataclass(frozen=True)
class RenderSettings:
    """Options of a movie or picture."""

    output: Path
    style: Style = "side-by-side"
    stack: str | None = None  # where a result has several
    labels: str | None = None  # name of the label image, where a stack has several
    frames: slice | None = None  # along T, or Z where there is no T, in the stack's numbering
    fps: float = 10.0
    channel: str | None = None  # number or name; None: the model's first
    contrast: tuple[float, float] = (1.0, 99.8)  # percentiles that are black and white
    scale_bar: str = "auto"  # "auto", "off", or a length in um
    width: int | None = None  # px across which a frame is drawn; None: its own, within limits
    z: str | None = None  # a plane, "max", None: all planes in turn, or the middle one under T
    image: Path | None = None  # where the raw image is, if not where it was
    overwrite: bool = False


def render(path: Path | str, settings: RenderSettings, progress: Progress | None = None) -> None:
    """Draw a result into `settings.output`, which appears complete or not at all.

    `progress` is called after each picture with the numbers done and to be done. Raises
    UsageError, StackError or OutputError, one sentence.
    """
    kind = settings.output.suffix.lower()
    if kind not in KINDS:
        raise UsageError(f"--output {settings.output}: give a name that ends in .mp4, .gif or .png")
    check_free(settings.output, overwrite=settings.overwrite)
    result = choose_stack(open_result(path, settings.labels), settings.stack, path)
    views = choose_views(result.labels, settings, single=kind == ".png")
    with ExitStack() as opened:
        scene = _scene(result, settings, views, kind, opened)
        with whole_file(settings.output, overwrite=settings.overwrite) as partial:
            drawn = (scene.picture(view) for view in _counted(views, progress))
            if kind != ".png":
                write = pictures.mp4 if kind == ".mp4" else pictures.gif
                with write(partial, settings.fps) as add:
                    for picture in drawn:
                        add(picture)
            elif len(views) == 1:
                pictures.png(partial, next(drawn))
            else:
                pictures.png(partial, pictures.contact_sheet(list(drawn)))


def _counted(views: list[View], progress: Progress | None) -> Iterator[View]:
    for n, view in enumerate(views):
        yield view
        if progress is not None:
            progress(n + 1, len(views))


def choose_views(labels: Planes, settings: RenderSettings, *, single: bool) -> list[View]:
    """The pictures to draw, in order. With `single`, one where no frames were named."""
    ts, zs = labels.ts, labels.zs
    planes: list[tuple[int, ...]]
    if settings.z is None:
        along_z = len(ts) == 1 and len(zs) > 1
        planes = [(z,) for z in zs] if along_z else [(zs[len(zs) // 2],)]
    elif settings.z == "max":
        along_z, planes = False, [tuple(zs)]
    elif settings.z.isdecimal() and int(settings.z) in zs:
        along_z, planes = False, [(int(settings.z),)]
    else:
        raise UsageError(f"--z {settings.z}: has the planes {zs[0]} to {zs[-1]}; or give max")
    views = [View(t, z) for t in ts for z in planes]
    if settings.z is None and len(zs) > 1 and not along_z:
        log.info("plane z=%d of %d is drawn; --z chooses another, or max", planes[0][0], len(zs))
    if settings.frames is not None:
        first = zs[0] if along_z else ts[0]
        views = _selected(views, first, settings.frames)
    elif single:
        views = [views[len(views) // 2]]
    if single and len(views) > SHEET:
        step = -(-len(views) // SHEET)
        raise UsageError(
            f"--frames: {len(views)} pictures are more than the {SHEET} of a contact sheet; take "
            f"every {step}th (A:B:{step}), or write an .mp4"
        )
    return views


def _selected(views: list[View], first: int, frames: slice) -> list[View]:
    """Views by the stack's own numbers; negative ones count from the end."""
    end = first + len(views)
    start, stop = (
        None if at is None else at + end if at < 0 else at for at in (frames.start, frames.stop)
    )
    wanted = range(start if start is not None else first, stop if stop is not None else end,
                   frames.step or 1)  # fmt: skip
    chosen = [views[n - first] for n in wanted if first <= n < end]
    if not chosen:
        raise UsageError(f"--frames: selects nothing of the frames {first} to {end - 1}")
    return chosen


def _scene(
    result: ResultStack,
    settings: RenderSettings,
    views: list[View],
    kind: str,
    opened: ExitStack,
) -> Scene:
    labels, style = result.labels, settings.style
    probability = result.probability if style == "probability" else None
    if style == "probability" and probability is None:
        raise UsageError(
            f"{result.store}: keeps no probabilities of {result.model}; segment with "
            "--keep probability, or choose another --style"
        )
    try:
        image = open_image(result, opened, settings.image, settings.channel)
    except UsageError as error:
        if style not in ("fill", "probability") or settings.image or settings.channel:
            raise
        log.warning("drawn without an image (%s)", str(error).partition("; ")[0])
        image = None
    n_panels = panels_of(style, image is not None)
    shape = panel_shape(labels, settings.width, n_panels, MOST[kind], len(views), kind == ".png")
    if (shape[1] < labels.size("X")) and settings.width is None:
        log.info(
            "frames of %d px are drawn %d px wide; --width sets another", labels.size("X"), shape[1]
        )
    limits = (
        movie_limits(image, views, shape, settings.contrast) if image is not None else (0.0, 1.0)
    )
    bar = _bar(result, settings.scale_bar, shape)
    last = max(view.t for view in views)
    return Scene(result, style, shape, image, limits, probability, bar, last)


def panel_shape(
    labels: Planes, width: int | None, n_panels: int, most: int, count: int, is_sheet: bool
) -> Shape:
    """Height and width in which a frame is drawn."""
    height, across = labels.size("Y"), labels.size("X")
    if width is None:
        limit = most
        if is_sheet and count > 1:
            limit = min(most, CELL * n_panels)
        width = across * math.ceil(LEAST / across)
        gaps = (n_panels - 1) * GAP
        room = min((limit - gaps) // n_panels, (limit - 2 * 40) * across // height)
        width = max(min(width, room), 16)
    return max(round(height * width / across), 1), width


def _bar(result: ResultStack, wanted: str, shape: Shape) -> ScaleBar | None:
    if wanted == "off":
        return None
    labels = result.labels
    pixel = labels.pixel_size_um.get("X")
    if wanted == "auto":
        return scale_bar(labels.size("X"), shape[1], pixel)
    if pixel is None:
        raise UsageError(
            f"--scale-bar {wanted}: the metadata of {result.name} have no pixel size; use auto, "
            "which gives a bar in px, or off"
        )
    try:
        um = float(wanted)
    except ValueError:
        um = 0.0
    bar = scale_bar(labels.size("X"), shape[1], pixel, um) if um > 0 else None
    if bar is None or bar.length > shape[1]:
        raise UsageError(
            f"--scale-bar {wanted}: give auto, off, or a length in um below the frame's "
            f"{pixel * labels.size('X'):.4g}"
        )
    return bar

"""Label images from wherever they lie: results, Zarr, TIFF, folders, challenge folders.

Labels are read in their own dtype. `engine.stacks` reads pixels for the network, and its
float32 would merge ids beyond 2**24.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from engine.errors import StackError, StacksegError, UsageError

Number = tuple[int, int]  # (t, z) of a frame; (z, 0) where the stack has no T

TIFF, PNG = (".tif", ".tiff"), (".png",)
USUAL_AXES = {2: "YX", 3: "TYX", 4: "TZYX", 5: "TCZYX"}  # of arrays that name none
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


@dataclass(frozen=True)
class LabelFrames:
    """Numbered label frames and a way to read each."""

    path: str
    numbers: tuple[Number, ...]  # sorted
    read: Callable[[Number], NDArray[Any]]  # -> (Y, X)


def open_labels(path: Path | str) -> LabelFrames:
    """Open label frames.

    Parameters
    ----------
    path
        A result folder of one stack, its NAME.zarr or a label image in it; a Zarr array; a TIFF
        of one or more frames; a PNG; a folder of TIFF or PNG frames; a Cell Tracking Challenge
        folder (NN_ST, NN_GT, their SEG, or what holds them: the complete silver truth first).

    Frames are numbered by T and Z of the array (by Z alone where there is no T), shifted by the
    translation of an OME-Zarr image; single files by the digits at the end of their names, or
    else by their order.

    Raises StackError or UsageError with one sentence where that is not possible.
    """
    where = Path(path)
    try:
        _refuse_unfinished(where)
        if where.is_file():
            return _open_file(where)
        if not where.is_dir():
            raise StackError(f"{where}: there is no such file or folder")
        return _open_folder(where)
    except StacksegError:
        raise
    except Exception as error:  # tifffile, imagecodecs and zarr raise what they like
        raise StackError(f"{where}: cannot be read as labels ({_first_line(error)})") from error


def _refuse_unfinished(path: Path) -> None:
    """Frames that are still to be segmented would score as empty ones."""
    for folder in (path, *path.resolve().parents):
        if (folder / ".stackseg" / "identity.json").is_file():
            if not (folder / "job.json").is_file():
                raise UsageError(f"{folder}: its job is not complete; run it to its end first")
            return


def _open_file(path: Path) -> LabelFrames:
    if path.suffix.lower() in PNG:
        return _files(path, {(_trailing_number(path) or 0, 0): path})
    if path.suffix.lower() not in TIFF:
        raise StackError(f"{path}: labels are read from TIFF, PNG, Zarr and folders of them")
    series = tifffile.TiffFile(path).series[0]
    array = zarr.open_array(series.aszarr(level=0), mode="r")
    if array.ndim == 2:
        return _array(path, array, series.axes, {"T": _trailing_number(path) or 0})
    return _array(path, array, series.axes)


def _open_folder(path: Path) -> LabelFrames:
    if any((path / name).is_file() for name in ZARR_FILES):
        return _open_zarr(path)
    results = sorted(path.glob("*.zarr")) or sorted(path.glob("*/*.zarr"))
    if len(results) > 1:
        names = ", ".join(str(r.relative_to(path)) for r in results)
        raise UsageError(f"{path}: holds the results of several stacks, name one of {names}")
    if results:
        return _open_zarr(results[0])
    folder = _challenge_folder(path) or path
    files = sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in TIFF + PNG and not _hidden(f)),
        key=_natural,
    )
    if not files:
        raise StackError(f"{path}: holds no label images (TIFF, PNG or Zarr)")
    return _files(path, _numbered(files))


def _challenge_folder(path: Path) -> Path | None:
    """The folder of man_seg*.tif that `path` stands for, if it is a challenge folder."""
    nearest_first = [path], path.glob("SEG"), path.glob("*_ST/SEG"), path.glob("*_GT/SEG")
    for folders in nearest_first:
        found = sorted(f for f in folders if any(f.glob("man_seg*.tif")))
        if len(found) > 1:
            names = ", ".join(str(f.relative_to(path)) for f in found)
            raise UsageError(f"{path}: holds several sequences, name one of {names}")
        if found:
            return found[0]
    return None


def _numbered(files: Sequence[Path]) -> dict[Number, Path]:
    """Files by frame number: from their names where these tell all apart, else by order."""
    named: dict[Number, Path] = {}
    for file in files:
        plane = re.fullmatch(r"man_seg_(\d+)_(\d+)", file.stem)  # one plane of a 3-D truth
        t = int(plane[1]) if plane else _trailing_number(file)
        if t is not None:
            named[(t, int(plane[2]) if plane else 0)] = file
    if len(named) == len(files):
        return dict(sorted(named.items()))
    return {(t, 0): file for t, file in enumerate(files)}


def _files(path: Path, files: Mapping[Number, Path]) -> LabelFrames:
    def read(number: Number) -> NDArray[Any]:
        file = files[number]
        try:
            labels = _read_image(file)
        except Exception as error:
            raise StackError(f"{file}: cannot be read as labels ({_first_line(error)})") from error
        return _plane(labels, file)

    return LabelFrames(str(path), tuple(files), read)


def _read_image(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in TIFF:
        return np.asarray(tifffile.imread(file))
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(file.read_bytes()))


def _plane(labels: NDArray[Any], where: Path) -> NDArray[Any]:
    """A label image without its axes of length 1; StackError where it is no plane then."""
    lean = labels.reshape([n for n in labels.shape[:-2] if n > 1] + list(labels.shape[-2:]))
    if lean.ndim == 3 and lean.shape[-1] in (2, 3, 4):
        raise StackError(f"{where}: is a colour picture, not a label image")
    if lean.ndim != 2:
        raise StackError(f"{where}: one frame of labels has two axes, not the shape {labels.shape}")
    return lean


def _open_zarr(path: Path) -> LabelFrames:
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return _array(path, node, _named_axes(node) or USUAL_AXES.get(node.ndim, ""))
    ome = _ome(node)
    if "labels" in node and isinstance(node["labels"], zarr.Group):
        return _open_zarr(path / "labels" / _label_image(path, node["labels"]))
    if "labels" in ome:
        return _open_zarr(path / _label_image(path, node))
    if "multiscales" not in ome:
        raise StackError(f"{path}: is a Zarr group without labels and without an image")
    image = ome["multiscales"][0]
    dataset = image["datasets"][0]
    axes = "".join(a["name"] for a in image["axes"])
    array = node[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise StackError(f"{path}: its level {dataset['path']} is not an array")
    return _array(path, array, axes, _first_frames(axes, dataset))


def _named_axes(array: zarr.Array[Any]) -> str:
    """The axes that an array names itself (Zarr 3, or xarray's attribute), or nothing."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name)[:1] for name in names).upper()
    return axes if set(axes) <= set("TCZYX") else ""


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """NGFF metadata, of version 0.5 (under "ome") or before."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    ome: Mapping[str, Any] = attributes.get("ome", attributes)
    return ome


def _label_image(path: Path, labels: zarr.Group) -> str:
    """The one label image of a result; that of the objects where there is a class map too."""
    names = sorted(_ome(labels).get("labels") or labels.group_keys())
    objects = [n for n in names if n.endswith("-objects")]
    names = objects or names
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise UsageError(f"{path}: needs one label image, has {listed}; name PATH/labels/NAME")
    return str(names[0])


def _first_frames(axes: str, dataset: Mapping[str, Any]) -> dict[str, int]:
    """Number of the first frame by axis: the translation over the step between two frames."""
    steps = {t["type"]: t for t in dataset.get("coordinateTransformations", ())}
    translation = steps.get("translation", {}).get("translation", [0] * len(axes))
    scale = steps.get("scale", {}).get("scale", [1] * len(axes))
    return {
        axis.upper(): round(shift / (step or 1))
        for axis, shift, step in zip(axes, translation, scale, strict=True)
    }


def _array(
    path: Path, array: zarr.Array[Any], axes: str, first: Mapping[str, int] | None = None
) -> LabelFrames:
    """Frames of an array, by T and Z; an axis of unknown meaning counts as T."""
    axes = axes.upper()
    if len(axes) != array.ndim or axes[-2:] != "YX":
        raise StackError(f"{path}: labels need axes that end in YX, not {axes} of {array.shape}")
    meaning = [
        "T" if a not in "TCZ" and n > 1 else a for a, n in zip(axes, array.shape, strict=True)
    ]
    t_axis, z_axis = (meaning[:-2].index(a) if a in meaning[:-2] else None for a in "TZ")
    if any(array.shape[i] > 1 for i in range(array.ndim - 2) if i not in (t_axis, z_axis)):
        raise StackError(
            f"{path}: labels have the axes T, Z, Y and X, not {axes} of the shape {array.shape}"
        )
    t0, z0 = ((first or {}).get(a, 0) for a in "TZ")
    if t_axis is None and z_axis is not None:  # planes of one volume: numbered like frames
        t_axis, z_axis, t0, z0 = z_axis, None, z0, 0
    n_t, n_z = (1 if i is None else array.shape[i] for i in (t_axis, z_axis))

    def read(number: Number) -> NDArray[Any]:
        index: list[int | slice] = [0] * (array.ndim - 2) + [slice(None)] * 2
        for axis, at in ((t_axis, number[0] - t0), (z_axis, number[1] - z0)):
            if axis is not None:
                index[axis] = at
        try:
            return np.asarray(array[tuple(index)])
        except Exception as error:
            raise StackError(
                f"{path}: frame {number[0]} cannot be read ({_first_line(error)})"
            ) from error

    numbers = tuple((t0 + t, z0 + z) for t in range(n_t) for z in range(n_z))
    return LabelFrames(str(path), numbers, read)


def _trailing_number(file: Path) -> int | None:
    digits = re.search(r"(\d+)$", file.stem)
    return int(digits[1]) if digits else None


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key that puts t2 before t10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _hidden(file: Path) -> bool:
    return file.name.startswith((".", "_"))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__

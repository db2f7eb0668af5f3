"""OME-XML in TIFF files: its images, the files that it names, where it is if it is elsewhere."""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from engine.errors import StackError
from engine.stacks.guard import brief

if TYPE_CHECKING:
    from tifffile import TiffFile

_FILE_NAME = re.compile(r"""FileName\s*=\s*("[^"]*"|'[^']*')""")
_MAX_XML = 256 << 20  # bytes of a companion file


def file_names(xml: str) -> list[str]:
    """Every file name that planes are said to be in, each once."""
    return sorted({unescape(quoted[1:-1]) for quoted in _FILE_NAME.findall(xml)})


def pixels_of(xml: str) -> list[tuple[str, ElementTree.Element]]:
    """Name and Pixels element of every image; ParseError for damaged XML."""
    return [
        (image.get("Name", ""), pixels)
        for image in ElementTree.fromstring(xml).findall("{*}Image")
        for pixels in image.findall("{*}Pixels")
    ]


def image_sizes(xml: str) -> list[dict[str, int]]:
    """Lengths of T, Z and C of every image, samples counted in C; ValueError for damaged XML."""
    try:
        elements = pixels_of(xml)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    return [{axis: int(pixels.get(f"Size{axis}", "1")) for axis in "TZC"} for _, pixels in elements]


def refuse_files_elsewhere(tif: TiffFile, name: str) -> None:
    """StackError where OME metadata refer to files outside the folder, or to what is no file."""
    folder = Path(tif.filehandle.dirname)
    for other in file_names(tif.ome_metadata or ""):
        if not _is_plain_file(folder, other):
            raise StackError(
                f"{name}: refers to frames in {brief(ValueError(other))}, which is not a file "
                "in its folder; write it again"
            )


def metadata_file(tif: TiffFile, name: str) -> Path | None:
    """The file with the metadata of a set whose other files hold pixels alone (BinaryOnly).

    None where the file has its own. Raises StackError where that file is not in the same folder.
    """
    xml = tif.ome_metadata or ""
    if "BinaryOnly" not in xml:
        return None
    try:
        element = ElementTree.fromstring(xml).find("{*}BinaryOnly")
    except ElementTree.ParseError:
        return None
    if element is None:
        return None
    other = element.get("MetadataFile", "")
    folder = Path(tif.filehandle.dirname)
    if not other or not _is_plain_file(folder, other) or not (folder / other).is_file():
        raise StackError(
            f"{name}: its metadata are in {brief(ValueError(other or 'another file'))}, which is "
            "not in its folder; copy it there, or give --series pages to read every page as a frame"
        )
    return folder / other


def xml_of_renamed(tif: TiffFile) -> str:
    """The OME-XML of a file that calls itself by an old name, as if it called itself by none.

    "" for any other file. A file counts as renamed where its metadata have no UUID of their own,
    all planes lie in one file that does not exist, and there are as many pages as planes.
    """
    xml = tif.ome_metadata or ""
    names = file_names(xml)
    if len(names) != 1 or (Path(tif.filehandle.dirname) / names[0]).exists():
        return ""
    try:
        planes = sum(math.prod(sizes.values()) for sizes in image_sizes(xml))
    except ValueError:
        return ""
    root = ElementTree.fromstring(xml)
    if root.get("UUID") or planes != len(tif.pages):
        return ""
    for data in root.iter():
        for uuid in data.findall("{*}UUID"):
            data.remove(uuid)
    return _as_text(root)


def companion_xml(file: Path, tif: TiffFile) -> str:
    """The OME-XML of a companion file, as if it were that of `tif`; StackError where it is none.

    The UUID of its root is that of another file, and tifffile would take it for this file's.
    """
    if file.stat().st_size > _MAX_XML:
        raise StackError(f"{file}: is too large for OME metadata; write the images again")
    try:
        own = ElementTree.fromstring(tif.ome_metadata or "").get("UUID")
        root = ElementTree.fromstring(file.read_bytes())
    except ElementTree.ParseError as error:
        raise StackError(f"{file}: is not OME metadata ({brief(error)}); copy it again") from error
    root.attrib.pop("UUID", None)
    if own:
        root.set("UUID", own)
    return _as_text(root)


def _as_text(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", root.tag.partition("}")[0].removeprefix("{"))
    return ElementTree.tostring(root, encoding="unicode")


def _is_plain_file(folder: Path, name: str) -> bool:
    """A name without folders, of a file (or a link to one) or of nothing."""
    parts = len(PurePosixPath(name).parts), len(PureWindowsPath(name).parts)
    try:
        plain = parts == (1, 1) and name not in (".", "..")
        return plain and ((folder / name).is_file() or not (folder / name).exists())
    except (OSError, ValueError):
        return False

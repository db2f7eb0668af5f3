"""Lengths in micrometres and times in seconds, from the units that image formats write.

One table for all: the symbols of OME-XML ("nm", "µm", "Å", "min"), the names of NGFF, which are
those of UDUNITS ("nanometer", "angstrom", "minute"), and the words of ImageJ ("micron", "sec").
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping

_PREFIXES = {  # powers of ten
    ("Y", "yotta"): 24, ("Z", "zetta"): 21, ("E", "exa"): 18, ("P", "peta"): 15, ("T", "tera"): 12,
    ("G", "giga"): 9, ("M", "mega"): 6, ("k", "kilo"): 3, ("h", "hecto"): 2, ("da", "deca"): 1,
    ("", ""): 0,
    ("d", "deci"): -1, ("c", "centi"): -2, ("m", "milli"): -3, ("µ", "micro"): -6,
    ("u", "micro"): -6, ("n", "nano"): -9, ("p", "pico"): -12, ("f", "femto"): -15,
    ("a", "atto"): -18, ("z", "zepto"): -21, ("y", "yocto"): -24,
}  # fmt: skip
_INCH = 25_400.0  # um
_ASTRONOMICAL = 149_597_870_700e6  # um
_UM = {
    ("Å", "angstrom", "angstroms"): 1e-4,
    ("micron", "microns"): 1.0,
    ("thou", "mil"): 25.4,
    ("li",): _INCH / 12,
    ("pt",): _INCH / 72,
    ("in", "inch", "inches"): _INCH,
    ("ft", "foot", "feet"): 12 * _INCH,
    ("yd", "yard", "yards"): 36 * _INCH,
    ("mi", "mile", "miles"): 63_360 * _INCH,
    ("ua", "au"): _ASTRONOMICAL,
    ("ly",): 9_460_730_472_580_800e6,
    ("pc", "parsec", "parsecs"): 648_000 / math.pi * _ASTRONOMICAL,
}
_S = {
    ("sec", "secs"): 1.0,
    ("msec", "msecs"): 1e-3,
    ("µsec", "usec", "usecs"): 1e-6,
    ("nsec", "nsecs"): 1e-9,
    ("min", "mins", "minute", "minutes"): 60.0,
    ("h", "hr", "hrs", "hour", "hours"): 3600.0,
    ("d", "day", "days"): 86_400.0,
}
_BELIEVED = 1e-18, 1e15  # um or s; what lies beyond says that the metadata is wrong


def micrometres(value: object, unit: object) -> float | None:
    """A length in um; None where the unit is not one of length, or the value cannot be one.

    `value` is a number or its text, of more than 0: up to 1e15 um are believed. `unit` is a symbol
    or a name; its case counts only where it must ("Mm" and "mm"; "Micron" is "micron"). Anything
    else, such as None, "pixel" or "reference frame", is not a unit of length.

    >>> micrometres(1.5, "nanometer"), micrometres("2", "mm"), micrometres(1, "pixel")
    (0.0015, 2000.0, None)
    """
    return _converted(value, unit, _LENGTHS)


def seconds(value: object, unit: object) -> float | None:
    """A time in s; None where the unit is not one of time, or the value cannot be one.

    Both as for `micrometres`; up to 1e15 s are believed.

    >>> seconds(2, "min"), seconds("5", "msec"), seconds(1, None)
    (120.0, 0.005, None)
    """
    return _converted(value, unit, _TIMES)


def _converted(value: object, unit: object, factors: Mapping[str, float]) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    name = _plain(unit) if isinstance(unit, str) else ""
    factor = factors.get(name, factors.get(name.lower(), 0.0))  # 0: no such unit
    try:
        size = float(value) * factor
    except (ValueError, OverflowError):
        return None
    low, high = _BELIEVED
    return size if low <= size <= high else None


def _plain(unit: str) -> str:
    """A unit with one letter for micro and one for angstrom, where Unicode has several."""
    escaped = unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ")  # as ImageJ writes it
    return unicodedata.normalize("NFKC", escaped).strip()


def _factors(
    symbol: str, names: tuple[str, ...], power: int, others: Mapping[tuple[str, ...], float]
) -> Iterator[tuple[str, float]]:
    """Factors by spelling: of a base unit, 10^power, with every prefix, and of other units."""
    for (short, long), exponent in _PREFIXES.items():
        for spelling in (short + symbol, *(long + name for name in names)):
            yield _plain(spelling), float(f"1e{exponent + power}")
    for spellings, factor in others.items():
        yield from ((_plain(spelling), factor) for spelling in spellings)


_LENGTHS = dict(_factors("m", ("meter", "meters", "metre", "metres"), 6, _UM))
_TIMES = dict(_factors("s", ("second", "seconds"), 0, _S))

"""Units of OME-XML, NGFF and ImageJ, against values written down by hand."""

from __future__ import annotations

import math

import pytest

from engine.stacks.lengths import micrometres, seconds

OME_LENGTHS = {  # symbol: power of ten of a metre; from the OME schema of 2016-06
    "Ym": 24, "Zm": 21, "Em": 18, "Pm": 15, "Tm": 12, "Gm": 9, "Mm": 6, "km": 3, "hm": 2, "dam": 1,
    "m": 0, "dm": -1, "cm": -2, "mm": -3, "µm": -6, "nm": -9, "pm": -12, "fm": -15, "am": -18,
    "zm": -21, "ym": -24, "Å": -10,
}  # fmt: skip
NGFF_LENGTHS = {
    "angstrom": -10, "attometer": -18, "centimeter": -2, "decimeter": -1, "exameter": 18,
    "femtometer": -15, "gigameter": 9, "hectometer": 2, "kilometer": 3, "megameter": 6,
    "meter": 0, "micrometer": -6, "millimeter": -3, "nanometer": -9, "petameter": 15,
    "picometer": -12, "terameter": 12, "yoctometer": -24, "yottameter": 24, "zeptometer": -21,
    "zettameter": 21,
}  # fmt: skip
OTHER_LENGTHS = {  # um
    "thou": 25.4, "li": 25_400 / 12, "in": 25_400, "ft": 304_800, "yd": 914_400, "mi": 1.609344e9,
    "ua": 1.495978707e17, "ly": 9.4607304725808e21, "pc": 3.0856775814913673e22, "pt": 25_400 / 72,
    "inch": 25_400, "foot": 304_800, "yard": 914_400, "mile": 1.609344e9,
    "parsec": 3.0856775814913673e22,
}  # fmt: skip
OME_TIMES = {
    "Ys": 24, "Zs": 21, "Es": 18, "Ps": 15, "Ts": 12, "Gs": 9, "Ms": 6, "ks": 3, "hs": 2, "das": 1,
    "s": 0, "ds": -1, "cs": -2, "ms": -3, "µs": -6, "ns": -9, "ps": -12, "fs": -15, "as": -18,
    "zs": -21, "ys": -24,
}  # fmt: skip
NGFF_TIMES = {
    "attosecond": -18, "centisecond": -2, "decisecond": -1, "exasecond": 18, "femtosecond": -15,
    "gigasecond": 9, "hectosecond": 2, "kilosecond": 3, "megasecond": 6, "microsecond": -6,
    "millisecond": -3, "nanosecond": -9, "petasecond": 15, "picosecond": -12, "second": 0,
    "terasecond": 12, "yoctosecond": -24, "yottasecond": 24, "zeptosecond": -21, "zettasecond": 21,
}  # fmt: skip
OTHER_TIMES = {"minute": 60, "min": 60, "hour": 3600, "h": 3600, "day": 86_400, "d": 86_400}


@pytest.mark.parametrize("unit, power", [*OME_LENGTHS.items(), *NGFF_LENGTHS.items()])
def test_every_metric_length_of_ome_xml_and_ngff(unit: str, power: int) -> None:
    assert micrometres(10.0 ** -(power + 6), unit) == pytest.approx(1)


@pytest.mark.parametrize("unit, um", OTHER_LENGTHS.items())
def test_every_other_length_of_ome_xml_and_ngff(unit: str, um: float) -> None:
    assert micrometres(1 / um, unit) == pytest.approx(1)


@pytest.mark.parametrize("unit, power", [*OME_TIMES.items(), *NGFF_TIMES.items()])
def test_every_metric_time_of_ome_xml_and_ngff(unit: str, power: int) -> None:
    assert seconds(10.0**-power, unit) == pytest.approx(1)


@pytest.mark.parametrize("unit, s", OTHER_TIMES.items())
def test_every_other_time_of_ome_xml_and_ngff(unit: str, s: float) -> None:
    assert seconds(2, unit) == 2 * s


@pytest.mark.parametrize(
    "unit", ["µm", "\u03bcm", "um", "\\u00B5m", "\\u00b5m", "micron", "Microns", " um ", "UM",
             "micrometre", "Micrometer"],
)  # fmt: skip
def test_the_spellings_of_a_micrometre(unit: str) -> None:
    assert micrometres(0.65, unit) == 0.65


def test_both_angstrom_signs_and_exact_factors() -> None:
    assert micrometres(1, "\u212b") == micrometres(1, "\u00c5") == micrometres(1, "A\u030a") == 1e-4
    assert micrometres(1, "inch") == 25_400
    assert micrometres(1, "nm") == 1e-3


def test_case_counts_where_it_must() -> None:
    assert micrometres(1e-6, "Mm") == 1e6
    assert micrometres(1, "mm") == micrometres(1, "MM") == 1e3
    assert seconds(1, "ms") == 1e-3
    assert seconds(1, "Ms") == 1e6


@pytest.mark.parametrize(
    "unit", ["pixel", "pixels", "reference frame", "", "furlong", None, 3, ["um"], "second", "m m"]
)
def test_what_is_no_length(unit: object) -> None:
    assert micrometres(1, unit) is None


@pytest.mark.parametrize("unit", ["pixel", "", None, 3, "meter", "m", "frame"])
def test_what_is_no_time(unit: object) -> None:
    assert seconds(1, unit) is None


@pytest.mark.parametrize(
    "value", [0, -1, math.nan, math.inf, True, None, "", "abc", "nan", "1e999", 10**400, 1e30, [1]]
)
def test_a_value_that_no_pixel_has(value: object) -> None:
    assert micrometres(value, "um") is None
    assert seconds(value, "s") is None


def test_numbers_as_text() -> None:
    assert micrometres("0.25", "µm") == 0.25
    assert seconds("90", "s") == 90

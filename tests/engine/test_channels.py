"""Which channels `--channel` means: by number, by name, and by names that are awkward."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StackError, UsageError
from engine.plan.channels import channel_number, choose_channels, parse_channels
from engine.plan.settings import job_settings
from engine.stacks.base import StackInfo
from tests import networks


def stack(*names: str, count: int | None = None) -> StackInfo:
    n = len(names) if count is None else count
    return StackInfo("s.tif", "TIFF", "CYX", (n, 8, 8), "uint8", names)


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("1", (1,)),
        (" 0 , 2 ", (0, 2)),
        ("GFP", ("GFP",)),
        ("GFP, far red", ("GFP", "far red")),
        ('"1"', ("1",)),
        ('"1",1', ("1", 1)),
        ('"DAPI, 405",GFP', ("DAPI, 405", "GFP")),
        ('"a ""b"""', ('a "b"',)),
        ('" GFP "', (" GFP ",)),
        ("-1", ("-1",)),
        ("٣", ("٣",)),  # a digit, but nobody's number of a channel
    ],
)
def test_lists_of_channels(text: str, channels: tuple[int | str, ...]) -> None:
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["", " ", ",", "0,", ",0", "0,,1", '"', '"a', 'a"', '"a"b', '""'])
def test_what_is_no_list_is_refused_with_the_settings(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        parse_channels(text)
    with pytest.raises(UsageError, match="--channel: is not understood"):
        job_settings(inputs=("s.tif",), model="nuclei", output=Path("out"), channel=text)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0"), min_size=1), min_size=1))
def test_names_in_quotes_are_as_in_csv(names: list[str]) -> None:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow(names)
    assert parse_channels(line.getvalue()) == tuple(names)


def test_numbers_are_numbers_whatever_channels_are_called() -> None:
    info = stack("1", "2", "405")
    spec = networks.spec(n_channels=2)
    assert choose_channels(info, "1,2", spec) == (1, 2)
    assert choose_channels(info, '"1","405"', spec) == (0, 2)
    with pytest.raises(StackError, match="has no channel '405'") as caught:
        choose_channels(info, "405,0", spec)
    assert "'\"405\"'" in str(caught.value)  # how the one of that name is given


def test_a_name_that_several_bear_is_refused() -> None:
    info = stack("GFP", "DAPI", "GFP", "GFP")
    with pytest.raises(StackError, match="channels 0, 2 and 3 are all named 'GFP'"):
        channel_number(info, "GFP")
    assert channel_number(info, "DAPI") == 1 and channel_number(info, 2) == 2


def test_spaces_around_a_name_count_only_where_names_differ_by_them() -> None:
    info = stack(" GFP", "DAPI ", "GFP")
    assert channel_number(info, "DAPI") == 1 and channel_number(info, " DAPI") == 1
    assert channel_number(info, "GFP") == 2 and channel_number(info, " GFP") == 0
    with pytest.raises(StackError, match="channels 0 and 1 are all named 'GFP'"):
        channel_number(stack(" GFP", "GFP "), "GFP")


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, unique=True))
def test_names_are_listed_as_they_can_be_given(names: list[str]) -> None:
    info = stack(*names)
    with pytest.raises(StackError) as caught:
        channel_number(info, len(names))
    listed = str(caught.value).partition(f"numbers 0 to {len(names) - 1} (")[2][:-1]
    if str(len(names)) not in names:  # else a hint on that name follows
        assert parse_channels(listed) == tuple(names)
        assert [channel_number(info, name) for name in parse_channels(listed)] == list(
            range(len(names))
        )

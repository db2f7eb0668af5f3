"""Objects by cores: on whole frames as the plain way has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.labels.cores import find_seeds
from engine.labels.holes import fill_pinholes
from engine.labels.instances import label_instances
from engine.labels.postprocessing import Postprocessing
from tests.engine import cores
from tests.engine.test_stitch import renumbered


def by_cores(
    growth: int = 2, pinhole: int = 0, unreached: str = "drop", min_area: int = 0
) -> Postprocessing:
    return Postprocessing(
        0.5, min_area, instances="cores", core_threshold=0.5, growth=growth, pinhole=pinhole,
        unreached=unreached,
    )  # fmt: skip


rules = st.builds(
    by_cores, st.integers(1, 5), st.integers(0, 6), st.sampled_from(["keep", "drop"]),
    st.integers(0, 8),
)  # fmt: skip


@st.composite
def masks(draw: st.DrawFn) -> tuple[cores.Mask, cores.Mask]:
    """Foreground and cores, which need not lie in it, (Y, X)."""
    shape = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    foreground = rng.random(shape) < draw(st.sampled_from([0.3, 0.6, 0.9, 1.0]))
    core = rng.random(shape) < draw(st.sampled_from([0.01, 0.1, 0.4, 0.8]))
    return foreground, core


@given(masks(), rules)
def test_equals_the_plain_way(case: tuple[cores.Mask, cores.Mask], how: Postprocessing) -> None:
    foreground, core = case
    wanted = cores.plain_objects(foreground[None], core[None], how)[0]
    found = label_instances(foreground, how, core)
    assert found.dtype == np.uint32
    assert np.array_equal(found, renumbered(wanted, how.min_area))


@given(masks(), st.integers(1, 8))
def test_pinholes(case: tuple[cores.Mask, cores.Mask], side: int) -> None:
    for mask in case:
        assert np.array_equal(fill_pinholes(mask, side), cores.filled(mask, side))


def parse(*rows: str) -> np.ndarray:
    return np.array([list(row) for row in rows])


def test_by_hand() -> None:
    picture = parse("######...", "#o##o#.##", "######.##", ".........")
    found = label_instances(picture != ".", by_cores(growth=2), picture == "o")
    wanted = parse("111222...", "111222.22", "111222...", ".........")
    # No core reaches the four pixels at the right.
    wanted[1, 7:] = "."
    assert np.array_equal(np.where(wanted == ".", "0", wanted).astype(int), found)
    kept = label_instances(picture != ".", by_cores(growth=2, unreached="keep"), picture == "o")
    assert np.array_equal(np.unique(kept[1:3, 7:]), [3]) and kept.max() == 3


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        (["o#o"], 1),  # of two as near, that to the left
        (["o", "#", "o"], 1),  # and that above
        (["..o", "o#.", "..."], 2),  # and the nearer one before any other
    ],
)
def test_pixels_between_cores(picture: list[str], label: int) -> None:
    masks = parse(*picture)
    found = label_instances(masks != ".", by_cores(), masks == "o")
    assert found[masks == "#"].tolist() == [label]


def test_cores_of_a_ring_are_one_where_the_gap_fits_into_the_box() -> None:
    ring = np.zeros((11, 11), bool)
    ring[1:-1, 1:-1] = True
    ring[3:-3, 3:-3] = False
    ring[5, 5] = True
    everything = np.ones_like(ring)
    assert label_instances(everything, by_cores(pinhole=4), ring).max() == 2
    assert label_instances(everything, by_cores(pinhole=5), ring).max() == 1


def test_growth_needs_no_further_look() -> None:
    """Of a window with a margin, what is inside is what it is in the whole."""
    rng = np.random.default_rng(3)
    how = by_cores(growth=3, pinhole=4, unreached="keep")
    foreground, core = rng.random((60, 70)) < 0.8, rng.random((60, 70)) < 0.3
    whole = find_seeds(foreground, core, how)
    margin, window = how.margin, (slice(10, 40), slice(12, 50))
    part = find_seeds(
        foreground[window], core[window], how,
        (slice(margin, 30 - margin), slice(margin, 38 - margin)),
    )  # fmt: skip
    inside = (slice(10 + margin, 40 - margin), slice(12 + margin, 50 - margin))
    own = (slice(margin, -margin), slice(margin, -margin))
    assert np.array_equal(part.mask[own], whole.mask[inside])

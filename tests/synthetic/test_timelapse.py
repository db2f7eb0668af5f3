"""The synthetic time-lapse: the same pixels however they are asked for, and a truth that holds."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.synthetic import TimeLapse
from engine.synthetic.population import axes, condensation
from engine.synthetic.timelapse import _history

SMALL = TimeLapse(shape=(40, 96, 130), seed=3, density=600, cycle=12)


def pixels(lapse: TimeLapse, t: int) -> bytes:
    image, labels = lapse.frame(t)
    return image.tobytes() + labels.tobytes()


def test_same_seed_same_bytes_and_another_seed_others():
    again = TimeLapse(**SMALL.parameters())
    assert again == SMALL
    assert pixels(again, 7) == pixels(SMALL, 7)
    assert pixels(replace(SMALL, seed=4), 7) != pixels(SMALL, 7)
    assert pixels(SMALL, 8) != pixels(SMALL, 7)


def test_frames_in_any_order_are_the_same():
    forward = [pixels(SMALL, t) for t in (0, 5, 30, 39)]
    _history.cache_clear()  # forget the way here
    backward = [pixels(SMALL, t) for t in (39, 30, 5, 0)]
    assert forward == backward[::-1]


def test_a_pickled_time_lapse_is_the_same():
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    SMALL.frame(3)  # having been used changes nothing
    assert pixels(pickle.loads(pickle.dumps(SMALL)), 3) == pixels(SMALL, 3)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_regions_fit_together(data):
    lapse = TimeLapse(shape=(2, 300, 320), seed=1, density=200)
    y0 = data.draw(st.integers(0, 299))
    y1 = data.draw(st.integers(y0 + 1, 300))
    x0 = data.draw(st.integers(0, 319))
    x1 = data.draw(st.integers(x0 + 1, 320))
    image, labels = lapse.frame(1)
    part, part_labels = lapse.region(1, (y0, y1), (x0, x1))
    np.testing.assert_array_equal(part_labels, labels[y0:y1, x0:x1])
    # The blur sums in another order at a cut: a rounding may differ, by one count.
    assert np.abs(part.astype(int) - image[y0:y1, x0:x1]).max() <= 1


def test_every_living_nucleus_is_seen_and_no_other():
    for t in range(SMALL.shape[0]):
        seen = np.setdiff1d(SMALL.frame(t)[1], [0])
        np.testing.assert_array_equal(seen, SMALL.nuclei(t)["id"])


def test_tracks_tell_who_lived_when_and_whose_daughter_it_is():
    tracks = SMALL.tracks()
    by_id = {row[0]: row for row in tracks.tolist()}
    daughters = [row for row in tracks.tolist() if row[3]]
    assert daughters, "nothing divided"
    for _, begin, end, parent in daughters:
        assert begin <= end
        assert by_id[parent][2] == begin - 1
    mothers, counts = np.unique([row[3] for row in daughters], return_counts=True)
    assert len(mothers) and (counts == 2).all()
    for t in (0, 13, 39):
        alive = tracks[(tracks[:, 1] <= t) & (t <= tracks[:, 2]), 0]
        np.testing.assert_array_equal(alive, SMALL.nuclei(t)["id"])


def test_nuclei_are_of_the_size_asked_for_and_bright_in_division():
    lapse = TimeLapse(shape=(30, 700, 1100), seed=0)
    nuclei = lapse.nuclei(20)
    long, short = axes(nuclei)
    resting = condensation(nuclei) == 0
    diameters = 2 * np.sqrt(long * short)[resting]
    assert abs(np.median(diameters) - lapse.diameter) < 2
    assert (long >= short).all()
    image, labels = lapse.frame(20)
    inside = image[labels > 0].mean() - image[labels == 0].mean()
    assert 0.5 * lapse.brightness < inside < 2 * lapse.brightness


def test_defaults_look_like_hela():
    lapse = TimeLapse(shape=(60, 700, 1100))
    assert 40 <= len(lapse.nuclei(0)) <= 60
    assert 120 <= len(lapse.nuclei(59)) <= 200
    image, labels = lapse.frame(59)
    assert (image.dtype, labels.dtype) == (np.uint16, np.uint32)
    assert image.min() > 32_900 and image.max() < 40_000
    touching = (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    assert touching.any(), "no two nuclei touch"


def test_a_long_time_lapse_neither_fills_up_nor_dies_out():
    lapse = TimeLapse(shape=(600, 300, 300), seed=5)
    counts = [len(lapse.nuclei(t)) for t in range(200, 600, 20)]
    assert min(counts) > 5 and max(counts) < 80


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (2, 8, 300), (2, 17, 16)])
def test_small_and_narrow_frames(shape):
    image, labels = TimeLapse(shape=shape).frame(shape[0] - 1)
    assert image.shape == labels.shape == shape[1:]


@pytest.mark.parametrize("seed", range(6))
def test_random_parameters_make_frames(seed):
    lapse = TimeLapse.random(seed, (4, 128, 128))
    assert lapse == TimeLapse.random(seed, (4, 128, 128))
    image, labels = lapse.frame(3)
    assert labels.any() and image.std() > 0
    assert image[labels > 0].mean() > image[labels == 0].mean()


def test_domed_nuclei_have_the_same_truth_and_dim_rims():
    """The light of an ellipsoid: what lies between d and the rim is sqrt(1 - d^2) of the centre."""
    quiet = TimeLapse(
        shape=(1, 200, 200), seed=4, density=100, texture=0, lobes=0, blur=0.01, background=0,
        unevenness=0, flicker=0, gain=1e-4, read_noise=0, brightness=10_000, offset=0,
        brightness_spread=0, cycle=1e6,
    )  # fmt: skip
    (flat, truth), (domed, same) = (replace(quiet, dome=d).frame(0) for d in (0.0, 1.0))
    assert np.array_equal(truth, same)
    share = domed[truth > 0] / flat[truth > 0]
    assert share.max() <= 1.001
    # Of a disc, the share of pixels below s is that outside d = sqrt(1 - s^2): s^2.
    for s in (0.4, 0.6, 0.8):
        assert (share < s).mean() == pytest.approx(s**2, abs=0.04)


def test_the_camera_has_shot_and_read_noise():
    """Where nothing is, the variance is that of read noise and of the background's photons."""
    lapse = TimeLapse(
        shape=(1, 400, 400), density=0, unevenness=0, flicker=0,
        background=200, gain=2.0, read_noise=5, brightness=1e-6,
    )  # fmt: skip
    image = lapse.frame(0)[0].astype(float)
    assert abs(image.mean() - (lapse.offset + 200)) < 0.5
    assert image.var() == pytest.approx(200 * 2.0 + 25 + 1 / 12, rel=0.03)


@pytest.mark.parametrize("wrong", [{"shape": (0, 5, 5)}, {"shape": (5, 5)}, {"seed": -1}])
def test_impossible_time_lapses_are_refused(wrong):
    with pytest.raises(UsageError):
        TimeLapse(**({"shape": (1, 5, 5)} | wrong))
    with pytest.raises(IndexError):
        TimeLapse(shape=(3, 5, 5)).frame(3)

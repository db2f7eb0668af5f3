"""Panels of class maps and probabilities; sheets of several pictures."""

import numpy as np

from engine.results.pictures.colours import colours, label_colours
from engine.results.pictures.files import contact_sheet
from engine.results.pictures.panels import (
    class_mixture,
    filled,
    heat,
    outlined,
    side_by_side,
)
from engine.results.result import LabelClass

CLASSES = (
    LabelClass(0, "background", (9, 9, 9)),
    LabelClass(1, "rim", (255, 0, 0)),
    LabelClass(2, "body", (0, 0, 200)),
)


def test_class_maps_take_their_own_colours_and_objects_those_of_their_ids():
    ids = np.array([2, 1, 2], np.uint8)
    assert label_colours(ids, CLASSES).tolist() == [[0, 0, 200], [255, 0, 0], [0, 0, 200]]
    np.testing.assert_array_equal(label_colours(ids, ()), colours(ids))


def test_fills_are_translucent_and_outlines_are_not():
    labels = np.zeros((6, 6), np.uint8)
    labels[1:5, 1:5] = 1
    base = np.full((6, 6, 3), 100, np.uint8)
    picture = filled(base, labels, CLASSES)
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[1, 1].tolist() == [255, 0, 0]
    assert picture[2, 2].tolist() == [162, 60, 60]
    assert outlined(base, labels, CLASSES)[2, 2].tolist() == [100, 100, 100]
    assert (base == 100).all(), "panels leave what they are made of alone"


def test_probabilities_mix_the_colours_of_the_classes():
    probability = np.array([[[1, 0.5, 0]], [[0, 0.5, 0]], [[0, 0, 1]]], np.float32)
    mixed = class_mixture(probability, CLASSES, np.zeros((1, 3), np.uint8))
    assert mixed.tolist() == [[[0, 0, 0], [128, 0, 0], [0, 0, 200]]]


def test_heat_goes_from_dark_to_bright():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None]
    picture = heat(ramp, np.zeros(ramp.shape, np.uint8)).astype(float)
    brightness = picture @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness[0]) > 0).all()
    assert picture[0, 0].max() < 8 and picture[0, -1].min() > 160


def test_pictures_lie_side_by_side_and_in_rows():
    one, two = np.full((4, 6, 3), 1, np.uint8), np.full((4, 6, 3), 2, np.uint8)
    both = side_by_side([one, two])
    assert both.shape == (4, 16, 3) and (both[:, -6:] == 2).all()
    pictures = [np.full((10 + n, 20, 3), 100 + n, np.uint8) for n in range(5)]
    sheet = contact_sheet(pictures)
    for n in range(5):
        assert (sheet == 100 + n).all(axis=2).sum() == (10 + n) * 20, "all of each is there"

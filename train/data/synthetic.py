"""Synthetic frames of nuclei for training, each from a time-lapse of its own."""

from __future__ import annotations

import numpy as np

from engine.model.spec import Normalisation
from engine.synthetic import TimeLapse
from train.data.frames import LabelledFrame, make_frame

SHAPE = (40, 384, 384)  # frames, rows, columns; nuclei divide and crowd as time goes on


def synthetic_frames(count: int, seed: int, normalisation: Normalisation) -> list[LabelledFrame]:
    """`count` frames whose size, density, brightness, shape, blur and noise vary widely.

    Every other frame is of the kind that the defaults of `TimeLapse` describe, but for its nuclei:
    all of them lie anywhere between flat and an ellipsoid. The truth is a nucleus' full extent,
    which the eye puts at half its brightness where it is flat and well below where it is round.
    Frames without a nucleus are left out and replaced.
    """
    frames: list[LabelledFrame] = []
    drawn = 0
    while len(frames) < count:
        rng = np.random.default_rng([seed, drawn])
        own = int(rng.integers(2**31))
        usual = TimeLapse(shape=SHAPE, seed=own, dome=float(rng.uniform(0, 1)))
        lapse = usual if drawn % 2 else TimeLapse.random(own, SHAPE)
        image, labels = lapse.frame(int(rng.integers(SHAPE[0])))
        if labels.any():
            name = f"synthetic/{drawn:05d}"
            truth = labels.astype(np.int32)
            frames.append(make_frame(name, image[None], truth, normalisation))
        drawn += 1
    return frames

"""A synthetic time-lapse as one frozen value: its parameters are all there is to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.synthetic import render
from engine.synthetic.population import History, Nuclei, track_table


@dataclass(frozen=True)
class TimeLapse:
    """Nuclei that move, grow and divide, seen by a microscope with a noisy camera.

    The same value gives the same pixels: in one go, frame by frame, in any order of frames, and
    region by region. Nothing is kept but the nuclei of some frames (a few kB each), so memory
    does not grow with the number of pixels that were made. The defaults look like Fluo-N2DL-HeLa
    of the Cell Tracking Challenge (0.645 um pixels, 30 min between frames, 16-bit with a large
    offset).
    """

    shape: tuple[int, int, int]  # frames, rows, columns
    seed: int = 0

    # The nuclei
    diameter: float = 26.0  # px; of a circle with the area of a typical nucleus
    size_spread: float = 0.13  # relative spread (1 sigma) of the diameter
    elongation: float = 1.35  # long over short axis of a typical nucleus
    lobes: float = 0.04  # departure of the outline from an ellipse, 1 sigma, of the radius
    density: float = 65.0  # nuclei per million pixels in the first frame
    clustering: float = 0.6  # part of the first nuclei that sit in colonies
    cycle: float = 40.0  # frames from one division to the next
    crowding: float = 0.17  # part of the frame's area under nuclei at which deaths balance births
    speed: float = 0.8  # px a frame, 1 sigma along each axis

    # Their light
    brightness: float = 520.0  # counts above background of a typical nucleus
    brightness_spread: float = 0.75  # 1 sigma of its natural logarithm, between colonies
    texture: float = 0.16  # relative contrast (1 sigma) of the chromatin
    grain: float = 1.6  # px; size of the chromatin's grains
    dome: float = 0.0  # 0: nearly flat; 1: as bright as an ellipsoid is thick, dim at its rim

    # The microscope and its camera
    blur: float = 1.2  # px; sigma of the point spread function
    background: float = 75.0  # counts
    unevenness: float = 0.2  # relative amplitude of the uneven illumination
    flicker: float = 0.01  # relative change of the lamp between frames, 1 sigma
    gain: float = 0.4  # counts per photon; its shot noise is sqrt(counts * gain)
    read_noise: float = 3.5  # counts, 1 sigma
    offset: int = 32_990  # counts of the camera in the dark

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UsageError(
                f"a synthetic time-lapse has a shape (frames, rows, columns) of at least 1 each, "
                f"not {self.shape}"
            )
        if self.seed < 0:
            raise UsageError(f"the seed of a synthetic time-lapse is 0 or more, not {self.seed}")

    @classmethod
    def random(cls, seed: int, shape: tuple[int, int, int]) -> TimeLapse:
        """A time-lapse with parameters drawn from wide ranges, for training.

        Parameters
        ----------
        seed
            Draws the parameters and then everything that they leave open.
        shape
            (frames, rows, columns).
        """
        rng = np.random.default_rng((seed, render.PARAMETERS))

        def between(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        def scale(low: float, high: float) -> float:  # uniform in the logarithm
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))

        diameter = scale(14, 56)
        brightness = scale(60, 6000)
        return cls(
            shape=shape,
            seed=seed,
            diameter=diameter,
            size_spread=between(0.06, 0.22),
            elongation=between(1.1, 1.6),
            lobes=between(0.005, 0.05),
            # From a few to many nuclei for their size: 4 % to 25 % of the area.
            density=scale(0.04, 0.25) * 1e6 / (np.pi / 4 * diameter**2),
            clustering=between(0, 1),
            cycle=between(15, 60),
            crowding=between(0.15, 0.5),
            speed=between(0, 0.06) * diameter,
            brightness=brightness,
            brightness_spread=between(0.1, 0.8),
            texture=between(0.03, 0.35),
            grain=between(0.04, 0.12) * diameter,
            blur=between(0.5, 0.09 * diameter),
            background=brightness * scale(0.02, 0.6),
            unevenness=between(0, 0.5),
            flicker=between(0, 0.05),
            # Photons in a typical nucleus: from barely there to clean.
            gain=brightness / scale(40, 4000),
            read_noise=brightness * scale(0.002, 0.08),
            offset=int(rng.choice([0, 100, 1000, 33_000])),
            dome=between(0, 1),
        )

    def nuclei(self, t: int) -> Nuclei:
        """The nuclei of frame `t`, a structured array; see `population.NUCLEUS`."""
        return _history(self).at(range(self.shape[0])[t])

    def frame(self, t: int) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
        """Image and truth of frame `t`, both of shape (rows, columns).

        Returns the image in counts (uint16) and the labels (uint32): 0 is background, any other
        value the id of a nucleus, the same in every frame in which it lives.
        """
        return self.region(t, (0, self.shape[1]), (0, self.shape[2]))

    def region(
        self, t: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
        """The part [rows), [columns) of `frame(t)`, without making the rest of it."""
        return render.region(self, self.nuclei(t), range(self.shape[0])[t], rows, columns)

    def tracks(self) -> NDArray[np.int64]:
        """The lineage, as in the challenge's man_track.txt: a row per nucleus, sorted by id.

        Shape (nuclei, 4): L id, B first frame, E last frame, P id of the mother or 0.
        """
        return track_table(self.nuclei(t) for t in range(self.shape[0]))

    def parameters(self) -> dict[str, Any]:
        """Every parameter by name, as JSON can hold it."""
        return asdict(self)


@lru_cache(maxsize=4)
def _history(lapse: TimeLapse) -> History:
    """What is remembered of a time-lapse: apart from it, so that it stays a plain value."""
    return History(lapse)

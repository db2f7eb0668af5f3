"""The nuclei of a synthetic time-lapse: plain arrays, a first state, and a step.

A nucleus grows from its birth to the end of its cycle, condenses into a bright, thin plate,
and becomes two that move apart across the plate and swell again. Where the dish is crowded,
some shrink into a bright speck and vanish instead, so that a long time-lapse does not fill up.

            area  ^        ______/|                       condensation  ^
                  |  _____/       |                                   1 |\\            /|
                  | /             |___                                  | \\__________/ |
                  +------------------> age                            0 +---------------> age
                  birth         division                                birth     division
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from engine.synthetic.timelapse import TimeLapse

NUCLEUS = np.dtype(
    [
        ("id", np.int64),  # 1, 2, ...; never used twice
        ("parent", np.int64),  # id of the mother, 0 for none
        ("born", np.int64),  # its first frame
        ("y", np.float64),  # px; centre, always inside the frame
        ("x", np.float64),
        ("vy", np.float64),  # px a frame
        ("vx", np.float64),
        ("angle", np.float64),  # rad; of the long axis, from x towards y
        ("age", np.float64),  # frames since birth
        ("cycle", np.float64),  # frames from birth to division
        ("size", np.float64),  # px^2; area in the middle of its cycle
        ("elongation", np.float64),  # long over short axis, between divisions
        ("light", np.float64),  # counts above background, between divisions
        ("lobes", np.float64, (3, 2)),  # cosine and sine part of outline modes 2, 3, 4
        ("grain", np.int64, (2,)),  # where its chromatin lies in the bank of textures
        ("doomed", np.bool_),  # ends its cycle by dying
    ]
)
Nuclei: TypeAlias = NDArray[np.void]  # a structured array of NUCLEUS, sorted by id
Floats: TypeAlias = NDArray[np.float64]

START, STEP = 1, 2  # names of random streams

CONDENSE, RELAX = 3.0, 5.0  # frames to condense before a division and to swell after it
CYTOPLASM, YIELD = 1.7, 0.015  # a cell over its nucleus; part of the overlap given way
EDGE = 2.0  # px that a centre keeps from the frame's edge: every nucleus stays in sight


class History:
    """The populations of a time-lapse, by frame; safe to use from several threads.

    Walking forward costs one step a frame; jumping costs at most `EVERY` steps once the frames
    before have been visited.
    """

    EVERY = 64  # frames between two remembered populations

    def __init__(self, lapse: TimeLapse) -> None:
        self._lapse = lapse
        self._lock = threading.Lock()
        self._kept: dict[int, Nuclei] = {}
        self._last: tuple[int, Nuclei] | None = None

    def at(self, t: int) -> Nuclei:
        """The nuclei of frame `t` (0 or more)."""
        with self._lock:
            at, nuclei = self._nearest_before(t)
            while True:
                if at % self.EVERY == 0:
                    self._kept[at] = nuclei
                if at == t:
                    break
                at += 1
                nuclei = step(self._lapse, nuclei, at)
            nuclei.flags.writeable = False  # it is remembered
            self._last = (t, nuclei)
            return nuclei

    def _nearest_before(self, t: int) -> tuple[int, Nuclei]:
        known = [k for k in self._kept if k <= t]
        kept = max(known, default=-1)
        if self._last is not None and kept < self._last[0] <= t:
            return self._last
        return (kept, self._kept[kept]) if known else (0, first(self._lapse))


def first(lapse: TimeLapse) -> Nuclei:
    """The nuclei of frame 0: some in colonies of like brightness, some alone."""
    rng = np.random.default_rng((lapse.seed, START))
    _, height, width = lapse.shape
    n = max(1, round(lapse.density * height * width / 1e6))
    colony = rng.integers(0, max(1, n // 7), n)
    alone = rng.random(n) >= lapse.clustering
    colony[alone] = colony.max() + 1 + np.arange(alone.sum())  # a colony of its own
    n_colonies = int(colony.max()) + 1

    where = rng.uniform(0, (height, width), (n_colonies, 2))
    light = lapse.brightness * np.exp(rng.normal(0, lapse.brightness_spread, n_colonies))
    scatter = rng.normal(0, 2.0 * lapse.diameter, (n, 2)) * ~alone[:, None]

    nuclei = np.zeros(n, NUCLEUS)
    nuclei["id"] = np.arange(1, n + 1)
    nuclei["y"], nuclei["x"] = (where[colony] + scatter).T
    nuclei["angle"] = rng.uniform(0, 2 * np.pi, n)
    nuclei["size"] = np.pi / 4 * (lapse.diameter * _spread(rng, lapse.size_spread, n)) ** 2
    nuclei["light"] = light[colony] * _spread(rng, 0.15, n)
    _individual(rng, lapse, nuclei)
    # In a growing population the young are many: ages are spread as 2 ** (-age / cycle).
    nuclei["age"] = -np.log2(1 - rng.random(n) / 2) * nuclei["cycle"]
    for _ in range(30):
        _push_apart(lapse, nuclei)
    return nuclei


def step(lapse: TimeLapse, before: Nuclei, t: int) -> Nuclei:
    """The nuclei of frame `t`, from those of frame t - 1."""
    rng = np.random.default_rng((lapse.seed, STEP, t))
    nuclei = before.copy()
    nuclei["age"] += 1
    _move(rng, lapse, nuclei)
    _choose_fates(rng, lapse, nuclei)
    done = nuclei["age"] >= nuclei["cycle"]
    mothers = nuclei[done & ~nuclei["doomed"]]
    next_id = 1 + int(before["id"].max(initial=0))
    daughters = _divide(rng, lapse, mothers, t, next_id)
    nuclei = np.concatenate([nuclei[~done], daughters])
    for _ in range(3):
        _push_apart(lapse, nuclei)
    return nuclei


def condensation(nuclei: Nuclei) -> Floats:
    """How condensed the chromatin is, shape (n,): 0 between divisions, 1 in them."""
    before = 1 - (nuclei["cycle"] - 1 - nuclei["age"]) / CONDENSE
    after = np.where(nuclei["parent"] > 0, 1 - nuclei["age"] / RELAX, 0)
    return np.asarray(np.clip(np.maximum(before, after), 0, 1))


def areas(nuclei: Nuclei) -> Floats:
    """Area of each nucleus as it is now, px^2, shape (n,)."""
    c = condensation(nuclei)
    grown = 0.75 + 0.5 * np.clip(nuclei["age"] / nuclei["cycle"], 0, 1)
    young = (nuclei["parent"] > 0) & (nuclei["age"] < RELAX)
    condensed = np.where(nuclei["doomed"], 0.14, np.where(young, 0.26, 0.36))
    return np.asarray(nuclei["size"] * grown * (1 - c + c * condensed))


def axes(nuclei: Nuclei) -> tuple[Floats, Floats]:
    """Half of the long and of the short axis as they are now, px, each of shape (n,)."""
    c = condensation(nuclei)
    plate = np.where(nuclei["doomed"], 1.0, 2.3)
    ratio = nuclei["elongation"] * (1 - c) + plate * c
    radius = np.sqrt(areas(nuclei) / np.pi)
    return radius * np.sqrt(ratio), radius / np.sqrt(ratio)


def track_table(populations: Iterable[Nuclei]) -> NDArray[np.int64]:
    """Rows (id, first frame, last frame, mother or 0), from the populations of frames 0, 1, ..."""
    rows: dict[int, list[int]] = {}
    for t, nuclei in enumerate(populations):
        for name, parent in zip(nuclei["id"].tolist(), nuclei["parent"].tolist(), strict=True):
            rows.setdefault(name, [name, t, t, parent])[2] = t
    return np.array([rows[name] for name in sorted(rows)], np.int64).reshape(-1, 4)


def _spread(rng: np.random.Generator, sigma: float, n: int) -> Floats:
    """Factors around 1; cut off at 2.5 sigma, so that none is absurd."""
    return np.exp(sigma * np.clip(rng.standard_normal(n), -2.5, 2.5))


def _individual(rng: np.random.Generator, lapse: TimeLapse, nuclei: Nuclei) -> None:
    """Draw what a nucleus does not inherit."""
    n = len(nuclei)
    nuclei["cycle"] = np.maximum(lapse.cycle * _spread(rng, 0.15, n), CONDENSE + RELAX + 1)
    nuclei["elongation"] = 1 + (lapse.elongation - 1) * _spread(rng, 0.5, n)
    nuclei["lobes"] = np.clip(rng.normal(0, lapse.lobes, (n, 3, 2)), -0.15, 0.15)
    nuclei["grain"] = rng.integers(0, 1 << 16, (n, 2))


def _move(rng: np.random.Generator, lapse: TimeLapse, nuclei: Nuclei) -> None:
    """A walk with a memory of about six frames; nuclei in division stay where they are."""
    n, memory = len(nuclei), 0.85
    kick = lapse.speed * np.sqrt(1 - memory**2)
    free = 1 - condensation(nuclei)
    for position, velocity in (("y", "vy"), ("x", "vx")):
        nuclei[velocity] = memory * nuclei[velocity] + kick * rng.standard_normal(n)
        nuclei[position] += nuclei[velocity] * free
    nuclei["angle"] += 0.06 * rng.standard_normal(n) * free


def _choose_fates(rng: np.random.Generator, lapse: TimeLapse, nuclei: Nuclei) -> None:
    """Those that are about to end their cycle learn whether they divide or die."""
    left = nuclei["cycle"] - 1 - nuclei["age"]
    choosing = (left <= CONDENSE) & (left > CONDENSE - 1)
    covered = nuclei["size"].sum() / (lapse.shape[1] * lapse.shape[2])
    risk = min(0.9, 0.5 * (covered / lapse.crowding) ** 3)  # one half: as many die as are born
    dies = rng.random(len(nuclei)) < risk
    if len(nuclei) > 2:  # the last of their kind do not die
        nuclei["doomed"] |= choosing & dies


def _divide(
    rng: np.random.Generator, lapse: TimeLapse, mothers: Nuclei, t: int, next_id: int
) -> Nuclei:
    """Two daughters for each mother, side by side across its plate."""
    n = len(mothers)
    side = np.repeat([-1.0, 1.0], n)
    daughters = np.concatenate([mothers, mothers])
    daughters["id"] = next_id + np.arange(2 * n)
    daughters["parent"] = np.concatenate([mothers["id"], mothers["id"]])
    daughters["born"] = t
    daughters["age"] = 0
    _individual(rng, lapse, daughters)
    apart = 0.30 * np.sqrt(daughters["size"]) * side
    daughters["y"] += apart * np.cos(daughters["angle"])
    daughters["x"] -= apart * np.sin(daughters["angle"])
    daughters["angle"] += 0.15 * rng.standard_normal(2 * n)
    daughters["light"] *= _spread(rng, 0.08, 2 * n)
    # Sizes drift from mother to daughter but come back to the typical one.
    typical = np.pi / 4 * lapse.diameter**2
    wander = _spread(rng, 1.2 * lapse.size_spread, 2 * n)
    daughters["size"] = np.sqrt(daughters["size"] * typical) * wander
    return daughters


def _push_apart(lapse: TimeLapse, nuclei: Nuclei) -> None:
    """Move overlapping neighbours apart, as circles of their area, and all into the frame.

    Overlap goes at once; within the reach of the cytoplasm around it a nucleus yields slowly,
    so that most neighbours keep a distance and some touch.
    """
    radius = np.sqrt(areas(nuclei) / np.pi)
    centre = np.stack([nuclei["y"], nuclei["x"]], axis=1)
    if len(nuclei) > 1:
        pairs: NDArray[Any] = cKDTree(centre).query_pairs(
            2 * CYTOPLASM * radius.max(), output_type="ndarray"
        )
        i, j = pairs[:, 0], pairs[:, 1]
        between = centre[j] - centre[i]
        distance = np.maximum(np.hypot(between[:, 0], between[:, 1]), 1e-6)
        reach = radius[i] + radius[j]
        push = 0.5 * np.maximum(reach - distance, 0)
        push += YIELD * np.maximum(CYTOPLASM * reach - distance, 0)
        push = between * (push / distance)[:, None]
        for axis in (0, 1):
            centre[:, axis] += np.bincount(j, push[:, axis], len(nuclei))
            centre[:, axis] -= np.bincount(i, push[:, axis], len(nuclei))
    for axis, name in ((0, "y"), (1, "x")):
        size = lapse.shape[1 + axis]
        edge = min(EDGE, (size - 1) / 2)
        nuclei[name] = np.clip(centre[:, axis], edge, size - 1 - edge)

"""From nuclei to pixels: outlines and chromatin, blur, uneven light, photons, camera.

Every step is a function of the position in the frame and not of the region asked for, so that
regions fit together seamlessly: the blur gets a halo, the noise comes in blocks with a random
stream each.

    counts = offset + gain * Poisson(light(y, x) * (nuclei * PSF + background) / gain) + read noise
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.synthetic import population
from engine.synthetic.population import Nuclei

if TYPE_CHECKING:
    from engine.synthetic.timelapse import TimeLapse

PARAMETERS, TEXTURE, LAMP, FLICKER, NOISE = 10, 11, 12, 13, 14  # names of random streams

BANK = 256  # px; side of the periodic bank of textures
BLOCK = 256  # px; side of a block of noise
TRUNCATE = 4.0  # sigmas at which the blur ends
OUTLINE = (0.65, 1.3)  # least and greatest radius of an outline, of its ellipse's


def region(
    lapse: TimeLapse, nuclei: Nuclei, t: int, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Image and labels of rows [rows[0], rows[1]) and columns [columns[0], columns[1])."""
    halo = int(TRUNCATE * lapse.blur + 0.5)
    _, height, width = lapse.shape
    y0, y1 = max(rows[0] - halo, 0), min(rows[1] + halo, height)
    x0, x1 = max(columns[0] - halo, 0), min(columns[1] + halo, width)
    light, labels = draw(lapse, nuclei, (y0, y1), (x0, x1))
    light = ndimage.gaussian_filter(light, lapse.blur, mode="nearest", truncate=TRUNCATE)
    inside = np.s_[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0]
    expected = light[inside] + np.float32(lapse.background)
    expected *= lamp(lapse, t, rows, columns)
    return camera(lapse, t, expected, (rows[0], columns[0])), np.ascontiguousarray(labels[inside])


def draw(
    lapse: TimeLapse, nuclei: Nuclei, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Light of the nuclei before any optics (counts, float32), and their labels (uint32).

    A pixel that two outlines claim goes to the nucleus to whose centre it is relatively nearer:
    neighbours touch along a line and do not overlap.
    """
    shape = (rows[1] - rows[0], columns[1] - columns[0])
    light = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint32)
    depth = np.ones(shape, np.float32)  # distance from the owner's centre; 1 is its outline
    bank = texture_bank(lapse.seed, lapse.grain)

    long, short = population.axes(nuclei)
    condensed = population.condensation(nuclei)
    reaches = np.ceil(long * OUTLINE[1]).astype(int)
    near = np.abs(nuclei["y"] - (rows[0] + rows[1]) / 2) <= reaches + shape[0] / 2 + 1
    near &= np.abs(nuclei["x"] - (columns[0] + columns[1]) / 2) <= reaches + shape[1] / 2 + 1
    for k in np.flatnonzero(near):
        nucleus, reach = nuclei[k], int(reaches[k])
        cy, cx = float(nucleus["y"]) - rows[0], float(nucleus["x"]) - columns[0]
        y0, y1 = max(int(cy) - reach, 0), min(int(cy) + reach + 2, shape[0])
        x0, x1 = max(int(cx) - reach, 0), min(int(cx) + reach + 2, shape[1])
        if y0 >= y1 or x0 >= x1:
            continue
        window = np.s_[y0:y1, x0:x1]

        # Coordinates along the long and the short axis, px.
        dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(cy))[:, None]
        dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(cx))[None, :]
        cos, sin = np.float32(np.cos(nucleus["angle"])), np.float32(np.sin(nucleus["angle"]))
        along, across = cos * dx + sin * dy, cos * dy - sin * dx

        distance = _distance(along / np.float32(long[k]), across / np.float32(short[k]), nucleus)
        mine = distance < depth[window]
        np.copyto(depth[window], distance, where=mine)
        np.copyto(labels[window], np.uint32(nucleus["id"]), where=mine)

        gy, gx = nucleus["grain"]
        grain = bank[(across + gy).astype(np.intp) % BANK, (along + gx).astype(np.intp) % BANK]
        contrast = np.float32(lapse.texture * (1 + condensed[k]))
        peak = np.float32(nucleus["light"] * (1 + 1.4 * condensed[k]))
        shade = np.maximum(1 + contrast * grain, 0.2)
        shade *= 1 - 0.3 * distance * distance  # thinner towards the rim
        if lapse.dome:
            # A widefield microscope sums light over depth: (1 - d^2)^(1/2) for an ellipsoid.
            thickness = np.maximum(1 - distance * distance, 0)
            shade *= thickness ** np.float32(lapse.dome / 2)
        np.copyto(light[window], peak * shade, where=mine)
    return light, labels


def _distance(u: NDArray[Any], v: NDArray[Any], nucleus: np.void) -> NDArray[np.float32]:
    """Distance from the centre relative to the outline's in that direction; 1 on the outline.

    The outline is the ellipse u^2 + v^2 = 1 with its radius changed by three harmonics.
    """
    radius = np.hypot(u, v)
    c, s = u / np.maximum(radius, 1e-6), v / np.maximum(radius, 1e-6)
    c2, s2 = c * c - s * s, 2 * c * s  # of twice the angle, then of three and four times
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c4, s4 = c2 * c2 - s2 * s2, 2 * c2 * s2
    outline = np.ones_like(radius)
    lobes = nucleus["lobes"].astype(np.float32)
    for (a, b), cosine, sine in zip(lobes, (c2, c3, c4), (s2, s3, s4), strict=True):
        outline += a * cosine + b * sine
    distance: NDArray[np.float32] = radius / np.clip(outline, *OUTLINE)
    return distance


@lru_cache(maxsize=8)
def texture_bank(seed: int, grain: float) -> NDArray[np.float32]:
    """Chromatin for all nuclei: periodic noise of mean 0 and sigma 1, shape (BANK, BANK)."""
    noise = np.random.default_rng((seed, TEXTURE)).standard_normal((BANK, BANK))
    smooth = ndimage.gaussian_filter(noise, grain, mode="wrap")
    bank: NDArray[np.float32] = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    bank.flags.writeable = False
    return bank


def lamp(
    lapse: TimeLapse, t: int, rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.float32]:
    """The illumination of a region around 1: smooth in space, trembling in time."""
    rng = np.random.default_rng((lapse.seed, LAMP))
    waves = rng.uniform((0.3, 0, 0.3, 0), (1, 2 * np.pi, 1, 2 * np.pi), (3, 4))
    y = np.arange(*rows) / lapse.shape[1]
    x = np.arange(*columns) / lapse.shape[2]
    vertical = np.cos(2 * np.pi * waves[:, :1] * y + waves[:, 1:2])  # (3, rows)
    horizontal = np.cos(2 * np.pi * waves[:, 2:3] * x + waves[:, 3:])  # (3, columns)
    field = vertical.T.astype(np.float32) @ horizontal.astype(np.float32)
    trembling = np.random.default_rng((lapse.seed, FLICKER, t)).normal(0, lapse.flicker)
    brightness: NDArray[np.float32] = 1 + np.float32(lapse.unevenness / 3) * field
    brightness *= np.float32(1 + trembling)
    return np.maximum(brightness, np.float32(0.05), out=brightness)


def camera(
    lapse: TimeLapse, t: int, expected: NDArray[np.float32], origin: tuple[int, int]
) -> NDArray[np.uint16]:
    """Counts of a camera that expects `expected` counts above its offset (float32)."""
    counts = np.empty(expected.shape, np.uint16)
    (oy, ox), (height, width) = origin, expected.shape
    for by in range(oy // BLOCK, -(-(oy + height) // BLOCK)):
        for bx in range(ox // BLOCK, -(-(ox + width) // BLOCK)):
            y0, y1 = max(by * BLOCK, oy), min((by + 1) * BLOCK, oy + height)
            x0, x1 = max(bx * BLOCK, ox), min((bx + 1) * BLOCK, ox + width)
            here = np.s_[y0 - oy : y1 - oy, x0 - ox : x1 - ox]
            rng = np.random.Generator(np.random.SFC64((lapse.seed, NOISE, t, by, bx)))
            inside = np.s_[y0 - by * BLOCK : y1 - by * BLOCK, x0 - bx * BLOCK : x1 - bx * BLOCK]
            shot = rng.standard_normal((BLOCK, BLOCK), np.float32)[inside]
            read = rng.standard_normal((BLOCK, BLOCK), np.float32)[inside]
            counts[here] = expose(lapse, expected[here], shot, read)
    return counts


def expose(
    lapse: TimeLapse,
    expected: NDArray[np.float32],
    shot: NDArray[np.float32],
    read: NDArray[np.float32],
) -> NDArray[np.uint16]:
    """Add shot and read noise to expected counts, from two fields of standard normals.

    Shot noise is Poisson(m) for m photons. Its Anscombe transform 2 sqrt(n + 3/8) is normal with
    sigma 1 to a good approximation from m = 4 on (Anscombe 1948, Biometrika 35:246), so n is
    drawn by inverting it: a tenth of the time of a Poisson draw per pixel, and a stream whose
    length does not depend on the light, which lets regions be cut anywhere.
    """
    photons = expected / np.float32(lapse.gain)
    root = np.maximum(np.sqrt(photons + np.float32(0.375)) + shot / 2, 0)
    counts = np.float32(lapse.gain) * np.maximum(root * root - np.float32(0.625), 0)
    counts += np.float32(lapse.read_noise) * read + np.float32(lapse.offset)
    rounded: NDArray[np.float32] = np.rint(counts, out=counts)
    return np.clip(rounded, 0, 65_535, out=rounded).astype(np.uint16)

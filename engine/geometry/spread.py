"""A few frames of many, spread evenly: for a look at stacks before all of them are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.geometry.layout import LabelLayout


def spread(layouts: Sequence[LabelLayout], count: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """`count` frames, as evenly over the stacks as their lengths allow, and evenly along each.

    Gives the stack's place in `layouts` and the frame's (t, z), in order.
    """
    sizes = [layout.n_frames for layout in layouts]
    shares = [0] * len(sizes)
    if count < len(sizes):
        for n in range(count):
            shares[(2 * n + 1) * len(sizes) // (2 * count)] = 1
    for _ in range(min(count, sum(sizes)) - sum(shares)):
        shares[min(
            (n for n in range(len(sizes)) if shares[n] < sizes[n]), key=lambda n: shares[n]
        )] += 1  # fmt: skip
    for at, (layout, share) in enumerate(zip(layouts, shares, strict=True)):
        for n in range(share):
            t, z = divmod((2 * n + 1) * layout.n_frames // (2 * share), layout.sizes[1])
            yield at, (t + layout.t0, z + layout.z0)

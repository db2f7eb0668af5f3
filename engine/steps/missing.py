"""Frames and stacks of which every stored chunk is missing: lost, or never written.

A Zarr writer may leave out chunks that hold background alone, and a copy that breaks off leaves
out the others. The files do not tell one from the other, so that what lacks every chunk is not
taken for background unless the user says so. What lacks some is counted, frame by frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import FrameError, StackError
from engine.stacks.base import Stack
from engine.stacks.units import frame_name

if TYPE_CHECKING:
    from engine.plan.plan import StackPlan

_WAY_OUT = (
    "copy the store again if they were lost, or give --missing-chunks background if they were "
    "left out because all of it is background"
)


def check_stack(stack: Stack) -> None:
    """StackError where none of a stack's chunks is there."""
    if not stack.holds_any():
        raise StackError(f"{stack.info.path}: none of its chunks is there; {_WAY_OUT}")


def check_frame(stack: Stack, plan: StackPlan, t: int, z: int) -> None:
    """FrameError where none of the chunks is there that feed the model of a frame."""
    if plan.missing_is_background:
        return
    missing = stack.missing_chunks(t, z, plan.channels)
    if missing and missing == stack.n_chunks(t, z, plan.channels):
        raise FrameError(
            f"{stack.info.path}: {frame_name(stack.info, t, z)}: none of its {missing} chunks is "
            f"there; {_WAY_OUT}"
        )

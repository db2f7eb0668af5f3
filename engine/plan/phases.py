"""What is done for a job, one file per step, each with a record that commits it.

    whole frames      segment
    stitched stacks   survey -> segment -> stitch -> finish
                      frame     block      stitch group    block
    then, for all     level-1 -> level-2 -> ...    each halves the one below

A step begins when the one before it is done everywhere: a job is a short list of passes.
"""

STEPS = ("survey", "segment", "stitch", "finish")
_LEVEL = "level-"


def level_step(level: int) -> str:
    """Name of the step that makes a level, from 1."""
    return f"{_LEVEL}{level}"


def level_of(step: str) -> int | None:
    """The level that a step makes; None where it makes none."""
    return int(step.removeprefix(_LEVEL)) if step.startswith(_LEVEL) else None


def with_levels(levels: int) -> tuple[str, ...]:
    """All steps of a job whose arrays have so many levels at most, level 0 included."""
    return (*STEPS, *map(level_step, range(1, levels)))

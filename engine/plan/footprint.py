"""The engine's constants of memory; those of a runtime stand in its own file.

docs/memory.md shows them all in one table, and a test holds that table to what stands here.
"""

from __future__ import annotations

from engine.geometry.arrays import IMAGE, LABELS, OBJECTS, PROBABILITY
from engine.runtimes.base import Constant

MB = 2**20

JOBS = "`pytest -s tests/engine/test_memory.py -k between_06`"
BENCHMARK = "`python -m benchmarks.footprint`"
LIMIT = "`pytest tests/engine/test_resources.py -k can_be_held`"

BASE = Constant(
    420 * MB,
    "bytes",
    "interpreter, libraries just installed, and what allocators keep beyond what is counted",
    JOBS,
)
COMPILING = Constant(
    200 * MB,
    "bytes",
    "loops that a job is the first to meet, while they are compiled",
    "`pytest -s tests/engine/test_memory.py -k first_job`",
)
FILE_COPIES = Constant(
    3, "of the model file", "as read, the parsed graph, a copy for shape inference", "by the code"
)
MEASURE = Constant(
    8,
    "bytes a pixel",
    "runs of labels, sums of objects and ends of their rows, while they are labelled or measured",
    BENCHMARK,
)
COUNT = Constant(
    8, "bytes a pixel", "16-bit pixels that NumPy counts as 64-bit indices", "by the code"
)
WATERSHED = Constant(
    28, "bytes a pixel", "places of the nearest background, distances, peaks", BENCHMARK
)
CORES = Constant(
    20, "bytes a pixel", "cores, places of what grows and of where it grows from", BENCHMARK
)
CLASS_OBJECTS = Constant(
    5,
    "bytes a pixel",
    "components of one class, or the probability of each pixel's class",
    "by the code",
)
PIECE_PIXELS = Constant(256, "px", "of a plane for each object that is planned for", "chosen")
PIECE = Constant(750, "bytes an object", "while its row of blocks is stitched", BENCHMARK)
PIECE_CHANNEL = Constant(140, "bytes an object", "its intensities in a channel", BENCHMARK)
PIECE_ROWS = Constant(16, "rows", "of an object in a plane", "chosen")
ROW = Constant(
    150, "bytes a row", "of an object that spans blocks, while its hull is found", BENCHMARK
)
FACE = Constant(
    64, "bytes a pixel", "both sides of a face, their contacts as keys, a sorted copy", BENCHMARK
)
LABELS_SHARE = Constant(1 / 4, "of the raw bytes", "a shard of labels, encoded", BENCHMARK)
PROBABILITY_SHARE = Constant(1 / 2, "of the raw bytes", "one of 8-bit probabilities", BENCHMARK)
IMAGE_SHARE = Constant(1.0, "of the raw bytes", "one of raw pixels: noise", "no shard is larger")
SHARES = {
    LABELS: LABELS_SHARE,
    OBJECTS: LABELS_SHARE,
    PROBABILITY: PROBABILITY_SHARE,
    IMAGE: IMAGE_SHARE,
}
USABLE = Constant(
    0.8,
    "of what is free",
    "taken without `--memory`: others, and the page cache, want some",
    "chosen",
)
MAPPED = Constant(
    1216 * MB, "bytes", "of a limited address space that libraries map and do not hold", LIMIT
)
MAPPED_PER_CORE = Constant(
    96 * MB, "bytes a core", "the same for threads' stacks and arenas", LIMIT
)

"""Where processes are killed; `inject/sitecustomize.py` knows how."""

from __future__ import annotations

# Points that a task comes to, in whatever process it runs: what a worker can be killed at.
TASK = (
    "read",  # a frame or a window has been read, and nothing made of it yet
    "infer",  # the network has run
    "committed",  # a block's record is in place; where its frames are whole, it owes its levels
    "halved",  # the same with a shard of the first of these, whose record is not begun
    "stitch-1",  # parts are gathered, contacts found
    "stitch-2",  # a map of final ids is put; a row of objects is told
    "write",  # half of an object's bytes are in staging
    "staged",  # an object is flushed, not renamed
    "renamed",  # it is renamed, its folder not flushed
    "record",  # all data is in place, the record is not begun
    "record-half",  # half of the record's bytes are in staging
    "level",  # the same of a level that a step of its own makes of what was put
)
COORDINATOR = (
    "start",  # half of an identity, of settings or metadata is in staging
    *TASK,
    "tables-half",  # half of a table is in staging
    "work",  # the tables are in place, half of work/ is removed
    "tables",  # all of it is, and job.json is not begun
)
# Each run of a job comes to these once at the most.
ONCE = ("work", "tables")

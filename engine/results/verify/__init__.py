"""Reads a job's output again and holds it against its records and checksums.

    run.py      the order of things           pieces.py    what labels say by themselves
    shards.py   a block's record and shard    frames.py    labels against rows and objects
    final.py    the tables at the end         reports.py   job.json, failures.json, checksums
    strays.py   what nobody owns              metadata.py  zarr.json

Nothing is written, and nothing grows with the number of frames but the time it takes.
"""

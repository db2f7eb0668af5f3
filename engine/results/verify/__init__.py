"""Reads a job's output again and compares it with its records and checksums; writes nothing.

    run.py       the order of things          metadata.py  zarr.json
    blocks.py    records, shards, levels      report.py    job.json, tables, changed records
    groups.py    labels, objects, counts      strays.py    what nobody owns
    areas.py     labels counted again         problems.py  what was found

docs/verify.md lists which check finds which fault.
"""

"""What is done for a job, one file per step, each with a record that commits it.

    whole frames      segment
    stitched stacks   survey -> segment -> stitch -> finish
                      frame     block      canvas    block

A step begins when the one before it is done everywhere: a job is a short list of passes.
"""

STEPS = ("survey", "segment", "stitch", "finish")

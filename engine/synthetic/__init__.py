"""Seeded time-lapses of nuclei: test stacks of any size whose truth is known.

timelapse.py   TimeLapse: every parameter, `frame(t)`, `region(...)`, `tracks()`
population.py  the nuclei: where they are, how they move, grow, divide and die
render.py      what a microscope makes of them: outline, texture, blur, light, noise
files.py       TIFF and Cell Tracking Challenge folders

from engine import synthetic
lapse = synthetic.TimeLapse(shape=(60, 700, 1100), seed=0)
image, labels = lapse.frame(30)
"""

from engine.synthetic.files import write_ctc, write_tiff
from engine.synthetic.timelapse import TimeLapse

__all__ = ["TimeLapse", "write_ctc", "write_tiff"]

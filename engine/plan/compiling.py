"""Whether a job meets loops that have never been compiled here: its process takes more then."""

from __future__ import annotations

from engine.compiled import is_kept
from engine.labels.cores import nearest_cores
from engine.labels.postprocessing import Postprocessing
from engine.measure.objects import intensities_of, shapes_of


def compiles(dtype: str, postprocessing: Postprocessing) -> bool:
    """Whether a job that finds objects in pixels of `dtype` has loops to compile; the largest are
    asked.

    After the first job of an installation, that is one with pixels of another type, or with cores.
    """
    if not (is_kept(shapes_of) and is_kept(intensities_of, dtype)):
        return True
    return postprocessing.instances == "cores" and not is_kept(nearest_cores)

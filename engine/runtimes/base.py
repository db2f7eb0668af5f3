"""What the engine asks of a runtime."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """A model made ready to run. Calls from several threads at once are allowed."""

    name: str  # runtime, build, provider and precision: what makes results reproducible

    def run(self, pixels: NDArray[Any], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities, float32 (N, K, H, W), of raw pixels (N, C, H, W).

        `statistics` has shape (N, C, 2); a channel whose low equals its high, which is constant,
        is 0 to the network. H and W are multiples of the model's stride.
        """
        ...

"""What is asked of a network: objects of one class, or the class of every pixel.

All that differs between the two is a `Task`: targets, loss, validation, scores and pictures.
"""

from __future__ import annotations

from typing import Any

from train.settings import TrainSettings
from train.tasks.base import Task
from train.tasks.classes import Classes
from train.tasks.instances import Instances

__all__ = ["Classes", "Instances", "Task", "task_of"]


def task_of(settings: TrainSettings) -> Task[Any]:
    """Classes where the settings have a palette, else objects."""
    return Classes(settings) if settings.classes else Instances(settings)

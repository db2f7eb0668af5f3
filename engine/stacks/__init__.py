"""Readers: one file per format, all opened by `open_stack`."""

from engine.stacks.base import Stack, StackInfo

__all__ = ["Stack", "StackInfo"]

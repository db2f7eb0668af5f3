"""Streams stacks through an exported model into label volumes. Never imports torch."""

__version__ = "0.1.0"

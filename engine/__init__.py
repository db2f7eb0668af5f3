"""Streams stacks through an exported model into label volumes. Never imports torch."""

import os

__version__ = "0.1.0"

# Arrow's own allocator keeps what each thread has freed; the system's can be told to return it
# (see tables.py). It is chosen once, when pyarrow is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

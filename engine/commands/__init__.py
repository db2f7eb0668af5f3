"""Sub-commands: options and messages only; what they do is imported when they run."""

"""From pixels to probabilities: tiles through a runtime, and whether a device can be believed."""

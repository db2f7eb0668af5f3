"""Trains U-Nets with PyTorch. Takes its readers and intensity statistics from `engine`."""

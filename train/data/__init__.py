"""Labelled frames: where they lie, how they are split, and what a network learns from them."""

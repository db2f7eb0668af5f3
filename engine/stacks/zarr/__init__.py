"""Zarr arrays and OME-Zarr images: read, and distrusted."""

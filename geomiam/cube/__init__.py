"""Labelled data on a grid: alignment, Zarr stores, sites, background points and coverage."""

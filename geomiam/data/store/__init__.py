"""Zarr stores of cubes, sites and maps."""

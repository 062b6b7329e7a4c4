"""Raster files as labelled lazy arrays on their own grids."""

"""Raster files as lazy arrays with coordinates, on the grids of the files."""

"""Grids: reading the grid of a dataset, and bringing data onto it."""

"""Sources of data: raster files and STAC catalogs, read onto the grid of a cube."""

"""Where data come from: a source yields a part of a cube on a given grid.

Sentinel-2 through STAC: :func:`geomiam.sentinel2`. Sources import the cube and errors, nothing else.
"""

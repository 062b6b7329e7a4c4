"""Scenes of STAC catalogs: read, masked on their pixels, and combined on a grid."""

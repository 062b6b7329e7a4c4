"""Sentinel-2 Level-2A through STAC."""

"""STAC catalogs: search, items, and checks on both."""

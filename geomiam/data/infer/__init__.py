"""Inference of a schema from a dataset."""

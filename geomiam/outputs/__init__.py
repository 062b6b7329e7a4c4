"""Outputs on disk: which path, whether it may be written, by whom, and how it is put in place."""

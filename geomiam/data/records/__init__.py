"""Occurrence records: files, coordinates, species and labels."""

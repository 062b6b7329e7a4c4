"""Labelled data: cubes, records, sites, and their files."""

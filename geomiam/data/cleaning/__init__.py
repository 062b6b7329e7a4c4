"""Cleaning and thinning of occurrence records."""

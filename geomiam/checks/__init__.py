"""Checks of input that comes from elsewhere: names, files, sizes and settings."""

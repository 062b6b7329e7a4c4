"""Requests: allowed hosts, limits, ranges of bytes."""

"""The command line: one file per family of verbs."""

from geomiam.cli.app import main

__all__ = ["main"]

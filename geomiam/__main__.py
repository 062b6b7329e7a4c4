"""``python -m geomiam``: the command line."""

from geomiam.cli import main

main()

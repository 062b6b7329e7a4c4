"""``python -m geomiam``: the command line."""

from geomiam.cli.main import main

main()

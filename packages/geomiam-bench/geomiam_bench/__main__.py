"""``python -m geomiam_bench``: the command ``geomiam-bench``."""

from geomiam_bench.cli import main

if __name__ == "__main__":
    main()

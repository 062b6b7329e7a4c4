"""The benchmarks of geomiam: readers of published data sets, comparisons, costs, and their pages."""

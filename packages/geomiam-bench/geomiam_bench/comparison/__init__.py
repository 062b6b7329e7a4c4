"""Comparison of whole systems: training, scores, costs, and tables of the results."""

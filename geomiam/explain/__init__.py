"""Explanations: exact Shapley values as maps, and what they need."""

"""Measures of how far a prediction can be relied on: novelty of the predictors."""

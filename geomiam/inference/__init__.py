"""Predictions: arrays in the engine, labels in the functions for users."""

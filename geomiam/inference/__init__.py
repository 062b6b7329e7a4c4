"""Predictions and exact explanations: arrays in the engine, labels in predict and shapley."""

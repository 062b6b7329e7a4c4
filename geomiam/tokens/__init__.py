"""Predictors → tokens: layout, scaler, blocks (numpy) and tokenizers (torch)."""

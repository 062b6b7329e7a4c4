"""The trained model: weights, schema, scaler and species; saving and loading."""

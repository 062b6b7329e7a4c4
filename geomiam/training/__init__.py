"""From sites to a model: fit, losses, spatial splits, checkpoints."""

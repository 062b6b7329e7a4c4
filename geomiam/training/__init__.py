"""From sites to a model: fit, fine-tuning, pre-training, losses and checkpoints."""

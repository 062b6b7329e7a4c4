def finetune():
    """."""

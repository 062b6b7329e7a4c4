"""How good is a model, from each subset of its predictors?"""

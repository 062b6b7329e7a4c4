"""How far a prediction can be relied on: novelty of the predictors, and calibration of prediction sets."""

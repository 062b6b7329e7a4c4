"""Sites: predictors and labels at points, background points among them."""

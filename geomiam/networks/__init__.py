"""Networks: tokens and what is visible in, one feature vector per row out; head; saved model."""

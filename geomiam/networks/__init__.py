"""Networks: from tokens, some of them hidden, to one feature vector per row and logits per species."""

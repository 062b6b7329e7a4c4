"""Fusions: each turns the tokens of a site, some of them hidden, into the features of the site."""

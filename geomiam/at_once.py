"""How much is computed at a time. No result depends on these numbers beyond rounding, only memory and speed."""

BUCKET_LENGTHS = 16
"""Lengths of buckets in training: a row is padded up to the next one. More lengths pad less, in more calls."""
TRAINED_TOKENS = {"cpu": 2048}
"""Tokens in a bucket by device. On a CPU they fit into its cache; other devices take all at once."""
POOLED_TOKENS = 4096
"""Tokens pooled at a time in evaluation: few enough for the cache, enough for the matrix products."""
BACKBONE_ROWS = 256
"""Rows per call of a backbone in evaluation, since its memory per row is unknown."""
SCORED_ROWS = 512
"""Rows per batch of the scores of an epoch and of other passes without a gradient."""
COMPARED_BYTES = 1024
"""Bytes of a row up to which equal rows are searched for; images are never equal."""
FILLED_ROWS = 1024
"""Sites whose gaps imputation fills at a time."""
ENCODED_ROWS = 8192
"""Rows of a response curve that become tokens at a time."""
ESTIMATED_COALITIONS = 256
"""Coalitions of a sampled Shapley game that are evaluated at a time."""
COALITION_VALUES = 2**30
"""Bytes of values of sampled coalitions in memory; further coalitions are evaluated again when they recur."""
GAME_SCORES = 2**28
"""Bytes of scores at a time in the Shapley values of a metric: how many coalitions share a pass over the sites."""

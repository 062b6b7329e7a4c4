"""Whole systems compared: who is trained and scored, what it costs, what the results say."""

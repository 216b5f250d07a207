"""Tuning: points asked of Optuna and trained on a tuning split, until the search's budget is spent."""

"""Tuning: points asked of Optuna and trained on a tuning split, until the search's budget is spent."""

from ablate.tuning.run import Tuned, budget_in_words, tune_study

__all__ = ["Tuned", "budget_in_words", "tune_study"]

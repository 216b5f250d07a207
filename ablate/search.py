"""The name under which study files written before 0.2 import what a search is declared with."""

from ablate.study.search import Choice, Range, Search

__all__ = ["Choice", "Range", "Search"]

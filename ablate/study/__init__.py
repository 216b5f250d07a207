"""What is asked: the fields of a trial, studies and searches over them, and the trials that follow."""

from ablate.study.search import Choice, Range, Search
from ablate.study.study import Profile, Published, Study, load_study

__all__ = ["Choice", "Profile", "Published", "Range", "Search", "Study", "load_study"]

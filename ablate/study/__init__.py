"""What is asked: the fields of a trial, studies and searches over them, how to run them, and their trials."""

from ablate.study.options import Options
from ablate.study.own import Metric
from ablate.study.search import Choice, Range, Search
from ablate.study.study import Profile, Published, Study, load_study

__all__ = ["Choice", "Metric", "Options", "Profile", "Published", "Range", "Search", "Study", "load_study"]

"""A gate for automated tests: conditions on a recorded study under which it fails."""

from ablate.check.expression import parse
from ablate.check.judge import Finding, Result, check_study
from ablate.check.show import show_result
from ablate.check.subject import Subject

__all__ = ["Finding", "Result", "Subject", "check_study", "parse", "show_result"]

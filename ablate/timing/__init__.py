"""What a training step costs, measured apart from training: nothing else running, the cases in turn.

A sweep's own step times share the machine with other trials. This pass runs after them, alone, and takes the
cases round by round, so that a slow moment of the machine meets all of them. `cases_of` says what a study's
plan has to be timed; `measure.time_cases` does it in a worker; `TimingPass` is what is kept.
"""

from ablate.timing.cases import Case, TimingPass, case_of, cases_of, plain_case, read_timing, write_timing

__all__ = ["Case", "TimingPass", "case_of", "cases_of", "plain_case", "read_timing", "write_timing"]

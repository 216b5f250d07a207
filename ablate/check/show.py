"""What a gate found, as lines for the log of an automated test."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from ablate.check.judge import Finding, Result
from ablate.compare import caution_text
from ablate.terminal import print_line


def show_result(console: Console, result: Result) -> None:
    """Print every condition with what it holds on, then whether the gate passes."""
    for line in _lines(result):
        print_line(console, line)


def _lines(result: Result) -> Iterator[str]:
    run = result.subject.run
    complete = run.statuses().get("complete", 0)
    name = f"{run.plan.study.name}, profile {run.plan.profile}"
    yield f"{name}: {complete} of {len(run.plan.trials)} trials complete"
    yield from _comparison_lines(result)
    for line in result.incomplete:
        allowed = result.allow_incomplete
        yield f"{line}; {'judged' if allowed else '--allow-incomplete judges'} by the others"
    for finding in result.findings:
        yield _finding_line(finding)
        yield from (f"  {line}" for line in finding.evidence)
    yield f"the check {'passes' if result.passes else 'fails'}"


def _comparison_lines(result: Result) -> Iterator[str]:
    """What makes the two runs hard to compare, and what was not."""
    subject = result.subject
    if subject.comparison is None:
        return
    comparison = subject.comparison
    if comparison.grave:
        yield caution_text(comparison)
    for where, arms in (("this", comparison.only_b), ("the --baseline", comparison.only_a)):
        if arms:
            yield f"not compared, because only {where} run has them: {'; '.join(arms)}"


def _finding_line(finding: Finding) -> str:
    if finding.holds is None:
        return f"cannot be told, and fails: {finding.text}"
    if finding.holds:
        return f"holds, and fails: {finding.text}"
    return f"does not hold: {finding.text}{f' (in any of {finding.arms} arms)' if finding.arms > 1 else ''}"

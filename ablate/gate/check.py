"""A gate for automated tests: conditions put to a recorded study, which hold, and on what evidence."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console

from ablate.analysis.arms import labels_of
from ablate.analysis.effects import higher_is_better
from ablate.errors import StudyError, nearest
from ablate.gate.compare import Comparison, compare_runs, difference_row, measured_columns
from ablate.gate.comparison_shown import caution_text, difference_text, mean_text, method_text, verdict_text
from ablate.gate.condition import COUNTS, OPERATORS, WORDS, Condition, Joined, Judged, Limit, leaves, parse
from ablate.gate.runs import Run
from ablate.metrics import METRICS
from ablate.stats import mean_interval
from ablate.study.fields import unknown_name
from ablate.tables.quantities import quantity
from ablate.terminal import print_line, printable


@dataclass(frozen=True)
class Subject:
    """A recorded study under a gate, and the metrics whose differences its conditions ask for.

    Its arms are compared with those of `other`, or without it with the study's own baseline arm.
    """

    run: Run
    other: Run | None
    asked: tuple[str, ...]

    @functools.cached_property
    def arms(self) -> Mapping[str, str]:
        """Every arm's name, and its label in the report, to its name."""
        labels = {label: arm for arm, label in labels_of(self.run.plan).items()}
        return {**labels, **{arm: arm for arm in self.run.plan.arms}}

    @functools.cached_property
    def references(self) -> Mapping[str, str]:
        """Every arm that is compared, to the arm that it is compared with."""
        if self.other is None:
            return dict(self.run.plan.comparisons)
        return {arm: arm for arm in self.run.plan.arms if arm in self.other.plan.arms}

    @functools.cached_property
    def comparison(self) -> Comparison | None:
        """The study against the other run, if there is one."""
        return None if self.other is None else compare_runs(self.other, self.run, self.asked)

    @functools.cached_property
    def differences(self) -> Mapping[tuple[str, str], Any]:
        """Arm and metric to the row of its difference from what it is compared with.

        Against another run all arms and all metrics asked for are one family. Within the study the families
        are the report's; a metric outside, uncorrected there, is corrected over the arms, as any of them can
        fail the gate.
        """
        if self.comparison is not None:
            rows = self.comparison.differences
        else:
            study, pairs = self.run.plan.study, self.references.items()
            rows = pd.DataFrame([
                difference_row(
                    (self.run, reference),
                    (self.run, arm),
                    metric,
                    margin=study.all_margins.get(metric, math.nan),
                    comparisons=len(pairs) * max(study.family_size(metric, 1), 1),
                )
                for arm, reference in pairs
                for metric in self.asked
            ])  # fmt: skip
        return {(str(row.term), str(row.metric)): row for row in rows.itertuples()}


@dataclass(frozen=True)
class Finding:
    """What became of one condition: `holds` is None where that cannot be told, which fails the gate too.

    `arms` is how many it was put to, 1 where it names its own; `evidence` has a line for each value that
    decides so.
    """

    text: str
    holds: bool | None
    arms: int
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of a gate; `incomplete` has a line for each run that lacks results."""

    subject: Subject
    findings: tuple[Finding, ...]
    incomplete: tuple[str, ...]
    allow_incomplete: bool

    @property
    def passes(self) -> bool:
        """Whether no condition holds, every one can be told, and no trial lacks a result unless allowed."""
        return all(item.holds is False for item in self.findings) and (
            self.allow_incomplete or not self.incomplete
        )


def check_study(
    run: Run, texts: Sequence[str], *, other: Run | None = None, allow_incomplete: bool = False
) -> Result:
    """Put conditions to a recorded study.

    A condition is put to one arm after the other, and holds where it does for any: "a and b" needs one arm
    for which both are true. Means and their intervals are over seeds, 95 % each.

    Args:
        run: the study.
        texts: the conditions, as `ablate.gate.condition` reads them.
        other: a run to compare with, arm by arm; None is the study's own baseline arm.
        allow_incomplete: judge by the trials that have a result; an arm without any is then left out.

    Raises:
        StudyError: a condition is malformed, or names what the study does not have.
    """
    conditions = [parse(text) for text in texts]
    asked = [leaf for condition in conditions for leaf in leaves(condition)]
    compared = tuple(dict.fromkeys(leaf.value.metric for leaf in asked if _is_compared(leaf)))
    subject = Subject(run, other, compared)
    problems = [problem for leaf in asked for problem in _problems(leaf, subject)]
    if other is not None and not compared:
        problems.append("nothing is compared with --baseline; add for example --fail-if 'accuracy worse'")
    if problems:
        raise StudyError("\n".join(dict.fromkeys(problems)))
    findings = [
        _finding(text, condition, subject, allow_incomplete)
        for text, condition in zip(texts, conditions, strict=True)
    ]
    incomplete = []
    for name, of in (("the study", run), ("the --baseline run", other)):
        counts = dict(of.statuses()) if of is not None else {}
        planned = sum(counts.values())
        lost = planned - counts.pop("complete", 0)
        if lost:
            words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            incomplete.append(f"{name} is incomplete: {lost} of {planned} trials have no result ({words})")
    return Result(subject, tuple(findings), tuple(incomplete), allow_incomplete)


# Conditions that make no sense of the study.


def _is_compared(leaf: Limit | Judged) -> bool:
    """Whether a condition is about a difference."""
    return isinstance(leaf, Judged) or leaf.difference


def _problems(leaf: Limit | Judged, subject: Subject) -> Iterator[str]:
    metric, arm = leaf.value.metric, leaf.value.arm
    if metric in COUNTS:
        plain = isinstance(leaf, Limit) and not (leaf.end or leaf.difference or leaf.percent)
        if not plain or arm is not None:
            yield f"--fail-if {metric}: counts the study's trials; write for example '{metric} > 0'"
        return
    measured = measured_columns()
    if metric not in measured:
        yield f"--fail-if {unknown_name('metric', printable(metric), [*measured, *COUNTS])}"
        return
    compared, within = _is_compared(leaf), subject.other is None
    if arm is not None and arm not in subject.arms:
        known = "; ".join(printable(name) for name in subject.run.plan.arms)
        hint = nearest(printable(arm), [printable(name) for name in subject.arms])
        yield f"--fail-if arm {printable(arm)!r}: is not of this study, whose arms are {known}.{hint}"
    elif compared and not subject.references:
        yield (
            "--fail-if: the study has no baseline arm to compare with; name a recorded run with --baseline"
            if within
            else "--baseline: the runs have no arm in common, so nothing can be compared"
        )
    elif arm is not None and compared and subject.arms[arm] not in subject.references:
        where = "the baseline itself" if within else "not in the --baseline run"
        yield f"--fail-if arm {printable(arm)!r}: is {where}, so there is nothing to compare it with"
    yield from _limit_problems(leaf) if isinstance(leaf, Limit) else _word_problems(leaf)


def _limit_problems(leaf: Limit) -> Iterator[str]:
    metric = leaf.value.metric
    fraction = quantity(metric).unit == "%"
    if leaf.percent and not fraction:
        unit = f", in {quantity(metric).unit}" if quantity(metric).unit else ""
        yield f"--fail-if {metric}: is no fraction; write the number without %{unit}"
    if metric not in METRICS:
        return
    lower, upper = METRICS[metric].bounds
    if leaf.difference:
        lower, upper = lower - upper, upper - lower
    if not lower <= leaf.number <= upper:
        of = f"a difference of {metric}" if leaf.difference else metric
        percent = fraction and not leaf.percent and lower <= leaf.number / 100 <= upper
        hint = f"; 0.01 is 1%, so write {leaf.number:g}% if that is meant" if percent else ""
        yield f"--fail-if {of}: lies between {lower:g} and {upper:g}, but {leaf.number:g} came{hint}"


def _word_problems(leaf: Judged) -> Iterator[str]:
    directed = higher_is_better(leaf.value.metric) is not None
    never = ("higher", "lower") if directed else ("better", "worse")
    if leaf.word in never:
        known = ", ".join(word for word in WORDS if word not in never)
        yield f"--fail-if {leaf.value.metric}: is never {leaf.word}; its verdicts are {known}"


# What holds.


Reading = tuple[bool | None, tuple[str, ...]]
"""Whether a condition holds for one arm (None: cannot be told), and the lines that show it."""


def _finding(text: str, condition: Condition, subject: Subject, allow_incomplete: bool) -> Finding:
    free = any(leaf.value.arm is None and leaf.value.metric not in COUNTS for leaf in leaves(condition))
    arms = subject.run.plan.arms if free else ("",)
    if allow_incomplete and free:
        ran = set(subject.run.trials.loc[subject.run.trials["status"] == "complete", "arm"])
        arms = tuple(arm for arm in arms if arm in ran)
    if not arms:
        return Finding(text, None, 0, ("no arm has a complete trial",))
    holds, lines = _first([_read(condition, arm, subject) for arm in arms], ANY)
    return Finding(text, holds, len(arms), tuple(dict.fromkeys(lines)))


ANY, ALL = (True, None, False), (False, None, True)


def _first(readings: Sequence[Reading], order: Sequence[bool | None]) -> Reading:
    """The first outcome in this order that occurs, with the lines of all readings that have it."""
    holds = next(outcome for outcome in order if any(held is outcome for held, _ in readings))
    return holds, tuple(line for held, lines in readings if held is holds for line in lines)


def _read(condition: Condition, arm: str, subject: Subject) -> Reading:
    """A condition for one arm; what names an arm or counts trials is the same for all."""
    if isinstance(condition, Joined):
        readings = [_read(part, arm, subject) for part in condition.parts]
        return _first(readings, ANY if condition.word == "or" else ALL)
    value = condition.value
    own = arm if value.arm is None or value.metric in COUNTS else subject.arms[value.arm]
    if isinstance(condition, Judged) or condition.difference:
        return _read_difference(condition, own, subject)
    if value.metric in COUNTS:
        counts = dict(subject.run.statuses())
        counts["failed"] = sum(
            count for status, count in counts.items() if status not in ("complete", "missing")
        )
        number, planned = counts.get(value.metric, 0), len(subject.run.trials)
        line = f"{value.metric} is {number} of {planned} trials"
        return bool(OPERATORS[condition.operator](number, condition.number)), (line,)
    mean = mean_interval(subject.run.values(own, value.metric))
    what = quantity(value.metric)
    measured = {"": mean.mean, "low": mean.low, "high": mean.high}[condition.end]
    return _compared(
        condition,
        measured,
        own,
        f"{what.axis} {mean_text(what, mean.mean, mean.low, mean.high, mean.n)}",
    )


def _read_difference(leaf: Limit | Judged, arm: str, subject: Subject) -> Reading:
    if arm not in subject.references:
        return False, ()  # the baseline arm itself, or an arm of this run alone
    row, what = subject.differences[arm, leaf.value.metric], quantity(leaf.value.metric)
    against = "the --baseline run" if subject.other is not None else subject.references[arm]
    unit = f" ({what.difference_unit})" if what.difference_unit else ""
    context = f"{what.label}{unit} {difference_text(row)} against {against}, {method_text(row)}"
    if isinstance(leaf, Limit):
        return _compared(leaf, {"": row.effect, "low": row.low, "high": row.high}[leaf.end], arm, context)
    lines = (f"{arm}: {leaf.value.metric} is {verdict_text(row)}: {context}",)
    if OPERATORS[leaf.operator](row.verdict, leaf.word):
        return True, lines
    # A difference that no test can judge would let the gate pass whatever its size.
    untold = row.reason in ("too_few_seeds", "no_spread") and row.verdict == "undecided"
    return None if untold and row.effect != 0 else False, lines


def _compared(leaf: Limit, value: float, arm: str, context: str) -> Reading:
    name = f"difference({leaf.value.metric})" if leaf.difference else leaf.value.metric
    operand = f"{leaf.end}({name})" if leaf.end else name
    if not math.isfinite(value):
        return None, (f"{arm}: {operand} cannot be told: {context}",)
    shown = f"{100 * value:.6g} %" if leaf.percent else f"{value:.6g}"
    line = f"{arm}: {operand} is {shown}: {context}"
    return bool(OPERATORS[leaf.operator](value, leaf.number)), (line,)


# The result as lines for the log of an automated test.


def show_result(console: Console, result: Result) -> None:
    """Print every condition with what it holds on, then whether the gate passes."""
    for line in _lines(result):
        print_line(console, line)


def _lines(result: Result) -> Iterable[str]:
    run, comparison = result.subject.run, result.subject.comparison
    yield f"{run.plan.study.name}, profile {run.plan.profile}: {run.progress()}"
    if comparison is not None:
        if comparison.grave:
            yield caution_text(comparison)
        for where, arms in (("this", comparison.only_b), ("the --baseline", comparison.only_a)):
            if arms:
                yield f"not compared, because only {where} run has them: {'; '.join(arms)}"
    for line in result.incomplete:
        yield f"{line}; {'judged' if result.allow_incomplete else '--allow-incomplete judges'} by the others"
    for finding in result.findings:
        arms_asked = f" (in any of {finding.arms} arms)" if finding.arms > 1 else ""
        yield {
            None: f"cannot be told, and fails: {finding.text}",
            True: f"holds, and fails: {finding.text}",
            False: f"does not hold: {finding.text}{arms_asked}",
        }[finding.holds]
        yield from (f"  {line}" for line in finding.evidence)
    yield f"the check {'passes' if result.passes else 'fails'}"

"""Conditions put to a study: which hold, in which arm, and on what evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ablate.check.expression import COUNTS, OPERATORS, Condition, Joined, Judged, Limit, leaves, parse
from ablate.check.subject import Subject, is_compared, make_subject
from ablate.compare import Difference, Run, difference_text, mean_text, method_text, verdict_text
from ablate.stats import mean_interval
from ablate.tables.quantities import quantity


@dataclass(frozen=True)
class Finding:
    """What became of one condition.

    Attributes:
        text: the condition as it was written.
        holds: None where that cannot be told, which fails the gate too.
        arms: how many arms it was put to; 1 where it names its arm, or none.
        evidence: a line for each value that decides so.
    """

    text: str
    holds: bool | None
    arms: int
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What became of a gate.

    Attributes:
        subject: what was judged.
        findings: of the conditions, in their order.
        incomplete: a line for each run that lacks results.
        allow_incomplete: whether that is allowed.
    """

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
        texts: the conditions, in the grammar of `ablate.check.expression`.
        other: a run to compare with, arm by arm; None is the study's own baseline arm.
        allow_incomplete: judge by the trials that have a result; an arm without any is then left out.

    Raises:
        StudyError: a condition is malformed, or names what the study does not have.
    """
    conditions = [parse(text) for text in texts]
    subject = make_subject(run, other, conditions)
    findings = [
        _finding(text, condition, subject, allow_incomplete)
        for text, condition in zip(texts, conditions, strict=True)
    ]
    return Result(subject, tuple(findings), tuple(_incomplete(subject)), allow_incomplete)


def _incomplete(subject: Subject) -> Iterator[str]:
    for name, run in (("the study", subject.run), ("the --baseline run", subject.other)):
        counts = dict(run.statuses()) if run is not None else {}
        planned = sum(counts.values())
        lost = planned - counts.pop("complete", 0)
        if lost:
            words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            yield f"{name} is incomplete: {lost} of {planned} trials have no result ({words})"


@dataclass(frozen=True)
class _Reading:
    """Whether a condition holds for one arm (None: cannot be told), and the lines that show it."""

    holds: bool | None
    lines: tuple[str, ...] = ()


def _finding(text: str, condition: Condition, subject: Subject, allow_incomplete: bool) -> Finding:
    free = any(leaf.value.arm is None and leaf.value.metric not in COUNTS for leaf in leaves(condition))
    arms = subject.run.plan.arms if free else ("",)
    if allow_incomplete and free:
        ran = set(subject.run.trials.loc[subject.run.trials["status"] == "complete", "arm"])
        arms = tuple(arm for arm in arms if arm in ran)
    readings = [_read(condition, arm, subject) for arm in arms]
    if not readings:
        return Finding(text, None, 0, ("no arm has a complete trial",))
    found = _any(readings)
    return Finding(text, found.holds, len(readings), tuple(dict.fromkeys(found.lines)))


def _any(readings: Sequence[_Reading]) -> _Reading:
    """True where one is; else unknown where one is."""
    return _first(readings, (True, None, False))


def _all(readings: Sequence[_Reading]) -> _Reading:
    """False where one is; else unknown where one is."""
    return _first(readings, (False, None, True))


def _first(readings: Sequence[_Reading], order: Sequence[bool | None]) -> _Reading:
    """The first outcome in this order that occurs, with the lines of all readings that have it."""
    holds = next(outcome for outcome in order if any(reading.holds is outcome for reading in readings))
    lines = (line for reading in readings if reading.holds is holds for line in reading.lines)
    return _Reading(holds, tuple(lines))


def _read(condition: Condition, arm: str, subject: Subject) -> _Reading:
    """A condition for one arm; what names an arm or counts trials is the same for all."""
    if isinstance(condition, Joined):
        readings = [_read(part, arm, subject) for part in condition.parts]
        return _any(readings) if condition.word == "or" else _all(readings)
    if condition.value.metric in COUNTS:
        assert isinstance(condition, Limit)  # make_subject refuses a count with a verdict
        return _read_count(condition, subject)
    own = arm if condition.value.arm is None else subject.arms[condition.value.arm]
    if is_compared(condition):
        return _read_difference(condition, own, subject)
    assert isinstance(condition, Limit)
    found = mean_interval(subject.run.sample(own, condition.value.metric).values)
    value = {"": found.mean, "low": found.low, "high": found.high}[condition.end]
    what = quantity(condition.value.metric)
    return _compared(condition, value, own, f"{what.axis} {mean_text(found, what)}")


def _read_count(leaf: Limit, subject: Subject) -> _Reading:
    counts = dict(subject.run.statuses())
    missing, complete = counts.get("missing", 0), counts.get("complete", 0)
    failed = sum(counts.values()) - missing - complete
    value = missing if leaf.value.metric == "missing" else failed
    line = f"{leaf.value.metric} is {value} of {sum(counts.values())} trials"
    return _Reading(bool(OPERATORS[leaf.operator](value, leaf.number)), (line,))


def _read_difference(leaf: Limit | Judged, arm: str, subject: Subject) -> _Reading:
    if arm not in subject.references:
        return _Reading(False)  # the baseline arm itself, or an arm of this run alone
    item = subject.differences[arm, leaf.value.metric]
    context = _difference_context(item, subject.references[arm], subject)
    if isinstance(leaf, Judged):
        return _read_verdict(leaf, item, f"{arm}: {leaf.value.metric} is {verdict_text(item)}: {context}")
    value = {"": item.difference, "low": item.low, "high": item.high}[leaf.end]
    return _compared(leaf, value, arm, context)


def _read_verdict(leaf: Judged, item: Difference, line: str) -> _Reading:
    judged = item.verdict
    if OPERATORS[leaf.operator](judged.word, leaf.word):
        return _Reading(True, (line,))
    # A difference that no test can judge would let the gate pass whatever its size.
    untold = judged.reason in ("too_few_seeds", "no_spread") and judged.word == "undecided"
    return _Reading(None if untold and item.difference != 0 else False, (line,))


def _difference_context(item: Difference, reference: str, subject: Subject) -> str:
    what = quantity(item.metric)
    against = "the --baseline run" if subject.other is not None else reference
    unit = f" ({what.difference_unit})" if what.difference_unit else ""
    return f"{what.label}{unit} {difference_text(item)} against {against}, {method_text(item)}"


def _compared(leaf: Limit, value: float, arm: str, context: str) -> _Reading:
    name = f"difference({leaf.value.metric})" if leaf.difference else leaf.value.metric
    operand = f"{leaf.end}({name})" if leaf.end else name
    if not math.isfinite(value):
        return _Reading(None, (f"{arm}: {operand} cannot be told: {context}",))
    shown = f"{100 * value:.6g} %" if leaf.percent else f"{value:.6g}"
    line = f"{arm}: {operand} is {shown}: {context}"
    return _Reading(bool(OPERATORS[leaf.operator](value, leaf.number)), (line,))

"""Arms of one run or of two, each beside what it is compared with; as text, Markdown and CSV."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from ablate.analysis.arms import complete_trials, finite_numbers, of_plan
from ablate.analysis.effects import arm_spread, effect_row
from ablate.errors import StudyError
from ablate.metrics import FLOORS
from ablate.stats.effect import independent_effect, paired_effect, verdict
from ablate.stats.intervals import mean_interval
from ablate.store.results import ResultsFolder
from ablate.study.comparisons import family_size
from ablate.study.fields import Fields, unknown_name
from ablate.study.trials import Plan, deciding
from ablate.tables.build import recorded_tables
from ablate.tables.columns import declare, open_plan
from ablate.tables.files import inert
from ablate.tables.quantities import Quantity, ends, number_columns, quantity, shown, shown_p, shown_seeds
from ablate.terminal import print_line, print_table, printable

SHOWN = ("accuracy", "nll", "ece")
RECORDED = ("device", "device_name", "resolved_precision", "threads", "torch_version", "commit")
GRAVE = {
    "data fingerprint": "data", "device": "device", "device_name": "device",
    "resolved_precision": "precision", "torch_version": "torch version", "commit": "commit",
}  # fmt: skip
"""Facts that can cause a difference by themselves, and what a reader calls them."""
SIDE = ("mean", "low", "high", "n")
HEADS = ("arm", "A", "B", "B - A", "verdict", "p", "compared")
REASONS = {
    "incomplete": "trials have no result", "too_few_seeds": "fewer than two seeds",
    "no_spread": "no spread to judge by", "undefined": "undefined in a complete trial",
}  # fmt: skip
CSV_COLUMNS = [
    "arm", "metric", *(f"{side}_{name}" for side in "ab" for name in SIDE),
    "difference", "low", "high", "method", "n", "comparisons", "p", "p_adjusted", "margin", "p_equivalence",
    "verdict", "reason", "below_margin", "seeds_from", "seeds_needed",
]  # fmt: skip
Pairs = Sequence[tuple[str, str]]
Part = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # a line, or a table's title, its heads and rows


@dataclass(frozen=True)
class Run:
    """One recorded study: where it is, what was planned, and its trials table."""

    folder: ResultsFolder
    plan: Plan
    trials: pd.DataFrame

    def by_seed(self, arm: str) -> pd.DataFrame:
        """The trials table over an arm's planned seeds; empty cells where a trial has no result."""
        complete = complete_trials(self.trials[self.trials["arm"] == arm])
        return complete.set_index(complete["seed"].astype(int)).reindex(sorted(self.plan.study.seed_list()))

    def undefined(self, arm: str, metric: str) -> int:
        """In how many complete trials of an arm a metric has no value."""
        complete = complete_trials(self.trials[self.trials["arm"] == arm])
        return int(np.isnan(finite_numbers(complete[metric])).sum())

    def statuses(self) -> Counter[str]:
        """How many planned trials ended how: `complete`, `missing`, or the kind of failure."""
        return Counter(map(str, self.trials["status"]))

    def __str__(self) -> str:
        complete = f"{self.statuses()['complete']} of {len(self.plan.trials)} trials complete"
        return f"{self.plan.study.name}, profile {self.plan.profile}: {complete}"


def read_run(folder: ResultsFolder) -> Run:
    """A recorded study with its metrics; from the records where it has predictions, else from its tables."""
    plan = open_plan(folder)
    return Run(folder, plan, of_plan(recorded_tables(folder, plan, ["trials"]), plan)["trials"])


@dataclass(frozen=True)
class Comparison:
    """Arms of run `b` beside arms of run `a`, which can be the same run.

    `differences` has for every metric and pair of arms a row as in the effects table, `comparisons` whose
    intervals hold together, `method`, "paired" by seed or "welch", whose `n` is the trials of both, and each
    side's own mean and 95 % interval, `a_mean`, `a_low`, `a_high`, `a_n`, with `a_floor`.
    """

    a: Run
    b: Run
    differences: pd.DataFrame

    @cached_property
    def rows(self) -> dict[tuple[str, str], Any]:
        """An arm of `b` and a metric to the row of its difference."""
        return {(str(row.term), str(row.metric)): row for row in self.differences.itertuples()}

    @property
    def alone(self) -> tuple[list[str], list[str]]:
        """Arms that only `a` has, and those that only `b` has."""
        a, b = self.a.plan.arms, self.b.plan.arms
        return [arm for arm in a if arm not in b], [arm for arm in b if arm not in a]

    @cached_property
    def unlike(self) -> list[tuple[str, str, str]]:
        """What differs between the runs besides: its name, and its value in each."""
        a, b = _facts(self.a), _facts(self.b)
        sides = [(name, a.get(name, "none"), b.get(name, "none")) for name in {**a, **b}]
        return [side for side in sides if side[1] != side[2]]

    @property
    def caution(self) -> str:
        """A sentence on what differs that can cause a difference by itself; "" where nothing does."""
        grave = ", ".join(dict.fromkeys(GRAVE[name] for name, *_ in self.unlike if name in GRAVE))
        return grave and f"Take care: the runs differ in {grave}; a difference may come from that alone."


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = SHOWN, pairs: Pairs | None = None) -> Comparison:
    """Join two runs by `pairs` of arms of `b` and of `a`, or else by the arms' names; differences are b - a.

    Intervals of all pairs and metrics hold together with 95 %; those of a run beside itself are no narrower
    than the report's. Arms are paired by seed where trials are the same but for the machine.
    """
    declare(a.plan.study, b.plan.study)
    measured = measured_columns(a, b)
    if unknown := [unknown_name("metric", name, measured) for name in metrics if name not in measured]:
        raise StudyError("\n".join(f"--metric {fault}" for fault in unknown))
    if pairs is None:
        pairs = [(arm, arm) for arm in a.plan.arms if arm in b.plan.arms]
    size = max(len(pairs) * len(metrics), family_size(b.plan) if a is b else 0)
    rows = [row for metric in metrics for row in _differences(a, b, pairs, metric, size)]
    return Comparison(a, b, pd.DataFrame(rows))


def metrics_shown(run: Run) -> tuple[str, ...]:
    """What is compared unless asked otherwise: of runs without predictions what their study is about."""
    return SHOWN if run.trials["accuracy"].notna().any() else run.plan.study.comparison_family


def measured_columns(a: Run, b: Run) -> list[str]:
    """Columns of both trials tables that hold a measured number, sorted."""
    return sorted((number_columns() - Fields.model_fields.keys()) & {*a.trials} & {*b.trials})


def _differences(a: Run, b: Run, pairs: Pairs, metric: str, comparisons: int) -> Iterator[dict[str, Any]]:
    # The smaller of the margins that the studies declare, so that neither can excuse more.
    margin = float(np.fmin.reduce([run.plan.study.all_margins.get(metric, np.nan) for run in (a, b)]))
    sides = [{"a": a.by_seed(against), "b": b.by_seed(arm)} for arm, against in pairs]
    values = [[finite_numbers(of[metric]) for of in both.values()] for both in sides]
    paired = [a is b or _trained(a, against) == _trained(b, arm) for arm, against in pairs]
    effects = [
        (paired_effect if by_seed else independent_effect)(second, first, comparisons=comparisons)
        for (first, second), by_seed in zip(values, paired, strict=True)
    ]
    # Luck shows where runs differ: arms that were trained to the same numbers say nothing about it.
    lucky = [values[at] for at, effect in enumerate(effects) if paired[at] and effect.sd > 0]
    pooled = arm_spread(lucky, np.ones(len(lucky)))
    for at, (arm, against) in enumerate(pairs):
        effect, present = effects[at], [int(np.isfinite(own).sum()) for own in values[at]]
        digests, others = (list(of["predictions_sha256"].fillna("")) for of in sides[at].values())
        # With a value lost the difference stays undecided.
        planned = min(present) + (present != [*map(len, values[at])])
        identical, better = paired[at] and digests == others and all(digests), quantity(metric).better
        judged = verdict(effect, planned=planned, better=better, margin=margin, identical=identical)
        spread = pooled if paired[at] else (float(effect.sd), float(effect.freedom))
        row = effect_row(metric, effect, judged, margin, spread, claim=True)
        if row["reason"] == "incomplete" and a.undefined(against, metric) + b.undefined(arm, metric):
            row["reason"] = "undefined"
        for side, of in sides[at].items():
            mean = mean_interval(finite_numbers(of[metric]), bounds=quantity(metric).bounds)
            row |= {f"{side}_{name}": getattr(mean, name) for name in SIDE}
            floor = finite_numbers(of[FLOORS[metric]]) if metric in FLOORS else np.array([np.nan])
            row[f"{side}_floor"] = mean_interval(floor).mean
        row |= {"kind": "run", "term": arm, "against": against, "comparisons": comparisons}
        yield row | ({"method": "paired"} if paired[at] else {"method": "welch", "n": sum(present)})


def _trained(run: Run, arm: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """What was trained on each seed, but for the device and its arithmetic; a fingerprint is of the data."""
    return {
        trial.seed: (trial.fingerprint, deciding(trial.fields))
        for trial in run.plan.trials
        if trial.arm == arm and trial.repeat == 0
    }


def _facts(run: Run) -> dict[str, str]:
    def listed(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values})) or "not recorded"

    study, fields = run.plan.study, [trial.fields.model_dump() for trial in run.plan.trials]
    named = dict.fromkeys(name for own in fields for name in own)  # arguments of code among them
    return {
        "study": study.name,
        "profile": run.plan.profile,
        **{name: listed(run.trials[name].dropna()) for name in RECORDED},
        "data fingerprint": listed(trial.fingerprint[:12] for trial in run.plan.trials),
        "seeds": listed(study.seed_list()),
        **{f"metric {name}": metric.code or "reported" for name, metric in study.metrics.items()},
        **{f"margin of {name}": f"{margin:g}" for name, margin in study.all_margins.items()},
        **{f"field {name}": listed(own[name] for own in fields if name in own) for name in named},
    }


def show_comparison(console: Console, comparison: Comparison) -> dict[str, Any]:
    """Print the comparison: what differs between the runs first, so that nobody overlooks it. Returns it."""
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        print_line(console, f"{letter}: {run.folder.root} ({run})")
    for line, heads, rows in _parts(comparison, str):
        print_line(console, line)
        if heads:
            print_table(console, heads, rows)
    return facts_of(comparison)


def facts_of(comparison: Comparison) -> dict[str, Any]:
    """All that is shown of a comparison, unrounded; its differences are rows as those of `write_csv`."""
    facts: dict[str, Any] = {"unlike": comparison.unlike, "caution": comparison.caution}
    for letter, run, alone in zip("ab", (comparison.a, comparison.b), comparison.alone, strict=True):
        named = {"study": run.plan.study.name, "profile": run.plan.profile, "folder": run.folder.root}
        facts[letter] = {**named, "planned": len(run.plan.trials), "statuses": run.statuses()}
        facts[f"only_in_{letter}"] = alone
    return facts | {"differences": _rows(comparison).to_dict("records")}


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the comparison as Markdown; what comes from the records stands as code, so it does nothing."""
    lines = [f"**B:** {_code(str(comparison.b))}, against **A:** {_code(str(comparison.a))}"]
    for line, heads, rows in _parts(comparison, _code):
        if not heads:
            lines += ["", f"> {line}" if line == comparison.caution else line]
            continue
        table = ["", *(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))]
        folded = ["", f"<details><summary>{line}</summary>", *table, "", "</details>"]
        lines += ["", f"**{line}**", *table] if heads == HEADS else folded
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(comparison: Comparison) -> pd.DataFrame:
    rows = comparison.differences.rename(columns={"term": "arm", "effect": "difference"})
    return rows.reindex(columns=CSV_COLUMNS)


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write the differences unrounded, one row per arm and metric; what cannot be told is empty."""
    rows = _rows(comparison).astype({"seeds_from": "Int64", "seeds_needed": "Int64"})
    rows["arm"] = rows["arm"].map(inert)
    path.write_text(rows.to_csv(index=False, lineterminator="\n"), encoding="utf-8")


def _code(text: str) -> str:
    """Text from a record as inline code: no link, mention or tag in it works, and no cell ends in it."""
    # A bar would end the cell even within code, and forges disagree on how to escape it there.
    line = " ".join(printable(text).replace("|", "¦").split()) or "–"
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{space}{line}{space}{fence}"


def _parts(comparison: Comparison, named: Callable[[str], str]) -> Iterator[Part]:
    """What there is to show, in order; `named` makes text from the records fit for where it is shown."""
    if comparison.unlike:
        yield "The runs differ in:", ("what", "A", "B"), [[*map(named, row)] for row in comparison.unlike]
    else:
        yield "The runs differ in nothing that is recorded of their settings and machines.", (), ()
    if comparison.caution:
        yield comparison.caution, (), ()
    if comparison.differences.empty:
        yield "The runs have no arm in common, so nothing is compared.", (), ()
    else:
        many = comparison.differences[["term", "metric"]].nunique()
        numbers = zip((*many, many.prod()), ("arm", "metric", "comparison"), strict=True)
        arms, metrics, pairs = (f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in numbers)
        said = f"Intervals of B - A hold together with 95 % over {arms} x {metrics} = {pairs}, p is corrected"
        yield f"Verdicts are of B against A. {said} likewise; those of A and B are 95 % each.", (), ()
        for metric, rows in comparison.differences.groupby("metric", sort=False):
            what, margin = quantity(str(metric)), float(rows["margin"].iloc[0])
            unit = f" in {what.difference_unit}" if what.difference_unit else ""
            known = f"margin {shown(margin, what)}" if math.isfinite(margin) else "no margin declared"
            cells = list[list[str]]()
            row: Any
            for row in rows.itertuples():
                sides = [[getattr(row, f"{side}_{name}") for name in (*SIDE, "floor")] for side in "ab"]
                told = difference_text(row), verdict_text(row), shown_p(row.p_adjusted), method_text(row)
                cells.append([named(str(row.term)), *(mean_text(what, *side) for side in sides), *told])
            yield f"{what.axis}; B - A{unit}; {known}", HEADS, cells
    for letter, alone in zip("AB", comparison.alone, strict=True):
        if alone:
            yield f"only in {letter}: {'; '.join(map(named, alone))}", (), ()


def mean_text(what: Quantity, mean: float, low: float, high: float, n: int, floor: float = math.nan) -> str:
    """A mean with its own interval and n; with its noise floor, where it has one."""
    reach = f"{ends(low, high, what)}, " if math.isfinite(low) else ""
    under = f", floor {shown(floor, what)}" if math.isfinite(floor) else ""
    return f"{shown(mean, what)} ({reach}n = {n}{under})"


def difference_text(row: Any) -> str:
    """The difference with its interval."""
    what = quantity(row.metric)
    reach = ends(row.low, row.high, what, "no interval", signed=True)
    return f"{shown(row.effect, what, signed=True)} ({reach})"


def method_text(row: Any) -> str:
    """How the two were compared, and over how many trials."""
    if row.method == "welch":
        return f"Welch, n = {row.a_n} and {row.b_n}"
    same = ", equal on every seed" if row.n > 1 and row.effect == 0 and math.isnan(row.low) else ""
    return f"paired by seed, n = {row.n}{same}"


def verdict_text(row: Any) -> str:
    """The verdict in a word, and why, or what would decide it."""
    why, few, many = "", row.seeds_from, row.seeds_needed
    if row.verdict == "equivalent" and row.reason == "identical":
        why = ": the same predictions"
    elif row.verdict == "equivalent" and row.below_margin:
        why = ", different by less than matters"
    elif row.verdict == "undecided":
        needed = "" if pd.isna(few) else f"{shown_seeds(few, many)} seeds would likely decide"
        why = "; ".join(filter(None, [REASONS.get(row.reason), needed]))
        why = why and f": {why}"
    return f"{row.verdict}{why}"

"""Runs that another tool made, judged as a study's are: `ablate.analyse` and `ablate report FILE.csv`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.errors import StudyError, first_line
from ablate.notebook import Run
from ablate.pipeline import require_name
from ablate.store.results import ResultsFolder
from ablate.study.external import ExternalStudy
from ablate.study.fields import canonical, unknown_name
from ablate.study.trials import Plan, Trial, arm_name
from ablate.tables import frame, read_tables, write_tables
from ablate.tables.quantities import Quantity, number_columns, quantities_of, quantity

PREFIXES = ("params.", "metrics.", "config.", "summary.", "tags.", "config/", "summary/")
"""Of columns in exports of MLflow and Weights & Biases; they need not be typed."""
RESULTS = ("metrics.", "summary.", "summary/")
NAMES, STATES = ("Name", "run_id", "ID", "id", "trial_id"), ("State", "state", "status", "Status")
"""Columns that name a run, and that say what became of it."""
DONE = {"finished", "complete", "completed", "success", "succeeded", "done"}
UNDONE = {
    "running", "scheduled", "pending", "preempting", "preempted", "crashed", "failed", "killed", "error",
    "diverged", "oom", "timeout", "missing", "unreadable", "canceled", "cancelled",
}  # fmt: skip
BETTER = {"higher": "higher", "lower": "lower", "neither": ""}
KEY = ("trial_id", "arm", "seed", "repeat", "status", "failure")


def analyse(
    runs: pd.DataFrame | str | Path,
    *,
    factors: Sequence[str],
    metrics: Mapping[str, str] | Sequence[str],
    seed: str | None = None,
    baseline: Mapping[str, Any] | None = None,
    report: str | Path = "report",
    **asked: Any,
) -> Run:
    """Judge runs that somebody already has as a study's are judged, and write their report. Trains nothing.

    Numbers are shown as they come, in the unit that they have. A run has failed that its tool does not call
    finished, or that has none of the metrics.

    Args:
        runs: a row per run: a DataFrame or the path of a CSV, such as an export of Weights & Biases or MLflow,
            the prefixes of whose columns (config., params., metrics.) can be left out below.
        factors: columns whose combinations of values are the arms.
        metrics: column to the direction that is better, "higher", "lower" or "neither"; or a list, where
            ablate has metrics of these names.
        seed: the column that pairs runs of different arms. Without one they are independent samples, which
            Welch's test compares.
        baseline: factor to the level that others are compared with; without one every two arms are.
        report: the folder of reports, in which page and tables go to a folder of their own.
        asked: as in `ablate.Study`: name (of that folder, otherwise the file's), question, primary (otherwise
            the first metric), family, comparisons, margins (in the metric's own unit; none by default).

    Raises:
        StudyError: a column is missing, or a row lacks a value or is there twice; the message names them.
        ResultsError: the report's folder cannot be written.
    """
    from ablate.report import require_writable, write_pages

    source = "the DataFrame" if isinstance(runs, pd.DataFrame) else Path(runs).name
    data = (runs if isinstance(runs, pd.DataFrame) else _read(Path(runs))).reset_index(drop=True)
    better = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics, "")
    columns = _columns(data, factors, better, [seed] if seed else [])
    levels = {factor: _levels(data[columns[factor]], factor) for factor in factors}
    measured = pd.DataFrame({metric: _numbers(data[columns[metric]], metric) for metric in better})
    arms = pd.Series(
        [arm_name(dict(zip(levels, own, strict=True))) for own in zip(*levels.values(), strict=True)]
    )
    seeds = _seeds(data[columns[seed]], seed, arms) if seed else arms.groupby(arms).cumcount()
    study = ExternalStudy(
        **{
            "name": Path(source).stem if source.endswith(".csv") else "runs",
            "question": f"What do {' and '.join(factors)} do to {' and '.join(better)}?",
            "primary": next(iter(better)),
            **asked,
        },
        **_grid(levels, set(arms), baseline or {}),
        seeds=tuple(sorted(set(seeds.tolist()))),
        source=source,
        seed=seed or "",
        differing=_differing(data, columns.values()),
    )
    require_name(study)
    for metric in (study.primary, *study.family, *study.margins):
        if metric not in better:
            raise StudyError(f"primary, family, margins: {unknown_name('metric', metric, better)}")
    quantities = [_quantity(name, better[name], measured[name], arms, columns[name]) for name in better]
    given = {"factors": factors, "metrics": metrics, "seed": seed, "baseline": baseline, **asked}
    words = ["runs" if source == "the DataFrame" else repr(source)]
    words += [f"{name}={value!r}" for name, value in given.items() if value]

    runs_of = measured.assign(trial_id=_names(data), failure=_failures(data, columns.values(), measured))
    trials = _trials(study, runs_of.set_index([arms, seeds]))
    tables = {"trials": trials.assign(study=study.name), "epochs": frame("epochs", [])}
    by = f"paired by {seed}" if seed else "independent of each other: no seed pairs them"
    plan = Plan.model_construct(
        study=study,
        profile=source,
        reason=f"{len(data)} runs from {source}, {by}; ablate trained none of them.",
        command=f"ablate.analyse({', '.join(words)})",
        trials=tuple(_planned(study, trials)),
    )
    folder = ResultsFolder(Path(report) / study.name)
    require_writable(folder.root)
    kept = trials[list(dict.fromkeys((*KEY, *factors, *better)))]
    write_tables(folder, {"trials": kept})
    with quantities_of(quantities):
        page = write_pages(tables, plan, folder, folder.root)
    failed = int((trials["status"] != "complete").sum())
    shown = {"trials": kept, **read_tables(folder, names=["effects"])}
    return Run(folder.root, 0, failed, False, shown, page, page.read_text(encoding="utf-8"))


def _read(path: Path) -> pd.DataFrame:
    """A CSV as it stands, every cell a text: what is a number shows in its column."""
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # also what is empty or no CSV
        raise StudyError(
            f"{path}: expected a CSV file with a row per run; it cannot be read: {first_line(error)}"
        ) from None


def _columns(
    data: pd.DataFrame, factors: Sequence[str], metrics: Collection[str], seed: Sequence[str]
) -> dict[str, str]:
    """For each name that is asked for, the column that it is of."""
    known = ", ".join(map(str, data))
    for part, names in (("factors", factors), ("metrics", metrics)):
        if isinstance(names, str) or not names:
            raise StudyError(f"{part}: expected a list of columns, but {names!r} came; there are {known}")
    if data.empty:
        raise StudyError("expected a row per run, but no row came")
    columns = {}
    for name in (*factors, *metrics, *seed):
        found = [name] if name in data else [p + name for p in PREFIXES if p + name in data]
        if len(found) > 1:
            raise StudyError(f"{name}: could be each of {', '.join(found)}; write one of them in full")
        if not found:
            short = [str(column).removeprefix(prefix) for column in data for prefix in ("", *PREFIXES)]
            raise StudyError(unknown_name("column", name, dict.fromkeys(short)))
        if name in columns or found[0] in columns.values() or (name in metrics and name in KEY):
            raise StudyError(
                f"{name}: is a factor, a metric or the seed, and named once; or rename the column"
            )
        columns[name] = found[0]
    return columns


def _levels(column: pd.Series[Any], name: str) -> list[Any]:
    """A value per row: numbers where every one is, otherwise text as it stands."""
    if (absent := column.isna()).any():
        raise StudyError(f"{name}: {_rows(absent)} no value; fill in what is meant, or take these runs out")
    if column.dtype == bool:
        return column.tolist()
    try:
        numbers = [float(value) for value in column]
    except (TypeError, ValueError):
        return column.astype(str).tolist()
    if not np.isfinite(numbers).all():
        return column.astype(str).tolist()
    return [int(number) if number.is_integer() else canonical(number) for number in numbers]


def _numbers(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """A metric, NaN where there is none."""
    try:
        return column.map(float, na_action="ignore").astype("float64")
    except (TypeError, ValueError) as error:
        raise StudyError(f"{name}: expected a column of numbers, but {first_line(error)}") from None


def _rows(chosen: pd.Series[Any]) -> str:
    """Rows in words, counted from 1, with the verb."""
    numbers = [str(at + 1) for at in np.flatnonzero(chosen)]
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"row {numbers[0]} has" if len(numbers) == 1 else f"rows {', '.join(numbers[:8])}{more} have"


def _seeds(column: pd.Series[Any], name: str, arms: pd.Series[Any]) -> pd.Series[Any]:
    """The seeds that pair runs; what is no whole number is numbered 0, 1, ... in its order."""
    values = pd.Series(_levels(column, name), dtype=object)
    if not all(isinstance(value, int) and value >= 0 for value in values):
        values = pd.Series(pd.factorize(values)[0])
    twice = pd.DataFrame({"arm": arms, "seed": values}).duplicated(keep=False)
    if twice.any():
        raise StudyError(
            f"{name}: {_rows(twice)} the levels and the seed of another; keep one of each, or name no seed, "
            "and runs count as independent"
        )
    if values.is_unique and arms.nunique() > 1:
        raise StudyError(
            f"{name}: no two runs share one, so it pairs nothing; name no seed, or another column"
        )
    return values.astype("int64")


def _grid(
    levels: Mapping[str, list[Any]], arms: Collection[str], baseline: Mapping[str, Any]
) -> dict[str, Any]:
    """Factors with their levels in order; the arms, where they are not all combinations; the baseline."""
    factors = {
        name: sorted(set(values)) if not isinstance(values[0], str) else list(dict.fromkeys(values))
        for name, values in levels.items()
    }
    every = [dict(zip(factors, own, strict=True)) for own in itertools.product(*factors.values())]
    there = tuple(arm for arm in every if arm_name(arm) in arms)
    found = {}
    for name, level in baseline.items():
        if name not in factors:
            raise StudyError(f"baseline: {unknown_name('factor', name, factors)}")
        same = [own for own in factors[name] if own == canonical(level) or str(own) == str(level)]
        if not same:
            raise StudyError(f"baseline: {name}={level!r} is not among its values {factors[name]}")
        found[name] = same[0]
    return {"factors": factors, "only": there if len(there) < len(every) else (), "baseline": found}


def _differing(data: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """In which other columns runs differ: those where some are alike, and those where none are."""
    others = [name for name in data if name not in (*used, *NAMES, *STATES)]
    counts = {name: data[name].astype(str).nunique() for name in others if not str(name).startswith(RESULTS)}
    settings = [f"{name} ({count} values)" for name, count in counts.items() if 1 < count < len(data)]
    unique = [str(name) for name, count in counts.items() if count == len(data) > 1]
    lines = (
        ", ".join(settings),
        f"In every run, as times and results do: {', '.join(unique)}" if unique else "",
    )
    return tuple(filter(None, lines))


def _failures(data: pd.DataFrame, used: Collection[str], measured: pd.DataFrame) -> pd.Series[Any]:
    """Why a run has no result; "" where it has one."""
    failures = pd.Series("", data.index).mask(measured.isna().all(axis=1), f"no {' or '.join(measured)}")
    for name in STATES:
        if name in data and name not in used:
            states = data[name].astype(str)
            if set(states.str.lower()) <= DONE | UNDONE:
                failures = failures.where(states.str.lower().isin(DONE), f"{name}: " + states)
    return failures


def _names(data: pd.DataFrame) -> pd.Series[Any]:
    """What each run is called."""
    own = next((data[name] for name in NAMES if name in data and data[name].is_unique), None)
    return data.index.map("row {}".format).to_series() if own is None else own.astype(str)


def _quantity(name: str, better: str, values: pd.Series[Any], arms: pd.Series[Any], column: str) -> Quantity:
    """How a metric is shown: as it comes, to two digits of the spread among runs of an arm."""
    known = quantity(name) if name in number_columns() else None
    if better not in BETTER and (better or known is None):
        raise StudyError(
            f"{name}: which direction is better? expected 'higher', 'lower' or 'neither', but {better!r} came"
        )
    spreads = values[np.isfinite(values)].groupby(arms).std()
    spread = spreads[spreads > 0].median()
    digits = min(max(1 - math.floor(math.log10(spread)), 0), 12) if spread > 0 else 4
    what = known or Quantity("number", name, f"column {column} of the runs", title=name)
    unit = what.stored_unit if what.factor == 1 else ""
    return replace(what, digits=digits, stored_unit=unit, better=BETTER.get(better, what.better))


def _trials(study: ExternalStudy, runs: pd.DataFrame) -> pd.DataFrame:
    """The trials table: ablate's own columns with what is known, the factors and the metrics."""
    levels = {arm_name(arm): arm for arm in study.arms()}
    every = itertools.product(study.seed_list(), levels)
    planned = [(arm, seed) for seed, arm in every if study.is_paired or (arm, seed) in runs.index]
    table = runs.reindex(pd.MultiIndex.from_tuples(planned))
    rows = [
        {
            "trial_id": f"no run of {arm}, seed {seed}" if pd.isna(name) else name,
            "arm": arm, "seed": seed, "repeat": 0,
            "status": "missing" if pd.isna(name) else "failed" if failure else "complete",
            "failure": failure or None,
        }
        for (arm, seed), name, failure in zip(planned, table["trial_id"], table["failure"], strict=True)
    ]  # fmt: skip
    own = {
        name: pd.Series([levels[arm][name] for arm, _ in planned]).convert_dtypes() for name in study.factors
    }
    found = {name: table[name].to_numpy() for name in table if name not in KEY}
    return frame("trials", rows).assign(
        **{name: values for name, values in own.items() if name not in KEY}, **found
    )


def _planned(study: ExternalStudy, trials: pd.DataFrame) -> Iterable[Trial]:
    """The trials of a plan: of their fields nothing is known."""
    levels = {arm_name(arm): arm for arm in study.arms()}
    for name, arm, seed in zip(trials["trial_id"], trials["arm"], trials["seed"], strict=True):
        yield Trial.model_construct(trial_id=name, arm=arm, levels=levels[arm], seed=int(seed), repeat=0)

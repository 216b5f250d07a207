"""Runs that another tool made, judged as a study's are: `ablate.analyse` and `ablate report FILE.csv`."""

from __future__ import annotations

import contextvars
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.errors import StudyError, first_line
from ablate.pipeline import Run, require_sound, with_report
from ablate.report.content import write_pages
from ablate.store.results import ResultsFolder
from ablate.study.fields import canonical, unknown_name
from ablate.study.options import Options
from ablate.study.own import Metric
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan, Trial, arm_name
from ablate.tables.columns import declare
from ablate.tables.files import frame, read_tables, write_tables
from ablate.tables.quantities import number_columns, quantity

PREFIXES = ("", "params.", "metrics.", "config.", "summary.", "config/", "summary/")
"""Of columns in exports of MLflow and Weights & Biases; they need not be typed."""
NAMES, STATES = ["Name", "run_id", "ID", "id", "trial_id"], ["State", "state", "Status", "status"]
"""Columns that name a run, and that say what became of it."""
DONE, UNDONE = {"finished", "complete", "completed", "success"}, {"running", "crashed", "failed", "killed"}
KEY = ["trial_id", "arm", "seed", "repeat", "status", "failure"]


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

    Numbers are shown as they come. A run without a metric, or that its tool does not call finished, failed.
    An AblateError says which column or row is missing or there twice, or that no report can be written.

    Args:
        runs: a row per run: a DataFrame or a CSV file, as Weights & Biases or MLflow export it; the prefixes
            of its columns (config., params., metrics.) can be left out below.
        factors: columns whose combinations of values are the arms.
        metrics: column to what is better: "higher", "lower", "neither"; "", or a list, where ablate knows.
        seed: the column that pairs runs of different arms; without one Welch's test compares them.
        baseline: factor to the level that others are compared with; without one every two arms are.
        report: the folder of reports; page and tables go to a folder in it.
        asked: as in `ablate.Study`: name (of that folder, otherwise the file's), question, primary (otherwise
            the first metric), family, comparisons, margins (in the metric's own unit; none by default).
    """
    source, stem = "a DataFrame", "runs"
    if not isinstance(runs, pd.DataFrame):
        source, stem = Path(runs).name, Path(runs).stem
        try:  # every cell as a text: what is a number shows in its column
            runs = pd.read_csv(Path(runs), dtype="str", keep_default_na=False, na_values=[""])
        except (OSError, ValueError) as error:  # also what is empty or no CSV
            raise StudyError(f"{runs}: expected a CSV with a row per run, but {first_line(error)}") from None
    data = runs.reset_index(drop=True)
    better = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics, "")
    columns = _columns(data, factors, list(better), [seed] if seed else [])
    parsed = {name: _parsed(data[columns[name]], name, needed=name not in better) for name in columns}
    levels = [dict(zip(factors, row, strict=True)) for row in zip(*map(parsed.get, factors), strict=True)]
    arms = pd.Series(map(arm_name, levels))
    seeds = _seeds(parsed[seed], seed, arms) if seed else arms.groupby(arms).cumcount()
    found = pd.DataFrame({name: parsed[name] for name in better})
    spreads = found.groupby(arms).std().median()
    declare()  # what is better, where ablate has metrics of these names, is ablate's
    question = f"What do {' and '.join(factors)} do to {' and '.join(better)}?"
    fields = {"name": stem, "question": question, "primary": next(iter(better)), **asked}
    fields |= _grid(levels, baseline or {}) | {"seeds": sorted(set(seeds)), "seed": seed or ""}
    fields["metrics"] = {name: _declared(name, better[name], float(spreads[name])) for name in better}
    study = ExternalStudy(**fields, differing=_differing(data, columns.values()))
    with_metrics = contextvars.copy_context()  # which this study alone declares
    with_metrics.run(require_sound, study, Options(report=Path(report)))
    given = {"factors": factors, "metrics": metrics, "seed": seed, "baseline": baseline, **asked}
    words = [repr(source), *(f"{name}={value!r}" for name, value in given.items() if value)]
    joined = f"paired by {seed}" if seed else "independent samples, as no seed pairs them"
    reason = f"{len(data)} runs from {source}, {joined}; ablate trained none of them."
    about = {"profile": source, "reason": reason, "command": f"ablate.analyse({', '.join(words)})"}
    rows = [f"row {row + 1}" for row in data.index]
    ids = next((data[name].map(str) for name in NAMES if name in data and data[name].is_unique), rows)
    runs_of = found.assign(trial_id=ids, failure=_failures(data, found)).set_index([seeds, arms])
    return with_metrics.run(_reported, study, runs_of, about, ResultsFolder(Path(report) / study.name))


def _reported(study: ExternalStudy, runs: pd.DataFrame, about: dict[str, Any], folder: ResultsFolder) -> Run:
    """Plan and table of trials of the runs, which are indexed by seed and arm; then their report."""
    arm_of = {arm_name(arm): arm for arm in study.arms()}
    every = pd.MultiIndex.from_product([study.seed_list(), arm_of], names=["seed", "arm"])
    table = runs.reindex(every if study.is_paired else every[every.isin(runs.index)])
    table, missing = table.reset_index().assign(repeat=0), table["trial_id"].isna().to_numpy()
    table["status"] = np.select([missing, table["failure"] != ""], ["missing", "failed"], "complete")
    table["trial_id"] = table["trial_id"].fillna("no " + table["arm"] + ", seed " + table["seed"].map(str))
    rows: Any = table[KEY].to_dict("records")
    own = table.drop(columns=KEY)
    trials = frame("trials", rows).assign(**own)
    about["trials"] = tuple(Trial.model_construct(**row, levels=arm_of[row["arm"]]) for row in rows)
    (folder.root / "figures").mkdir(parents=True, exist_ok=True)
    shown = {"trials": trials[[*KEY, *own]]}
    write_tables(folder, shown)
    tables = {"trials": trials, "epochs": frame("epochs", [])}
    page = write_pages(tables, Plan.model_construct(study=study, **about), folder, folder.root)
    shown |= read_tables(folder, names=["effects"])
    failed = int((trials["status"] != "complete").sum())
    return with_report(page, shown, folder=folder.root, ran=0, failed=failed, interrupted=False)


def _columns(data: pd.DataFrame, *asked: Sequence[str]) -> dict[str, str]:
    if data.empty or not all(asked[:2]) or any(isinstance(names, str) for names in asked):
        came = f"{len(data)} rows came, with the columns {', '.join(map(str, data))}"
        raise StudyError(f'expected rows, and lists of columns, as factors=["lr"], metrics=["acc"]; {came}')
    columns = dict[str, str]()
    for name in itertools.chain(*asked):
        found = [prefix + name for prefix in PREFIXES if prefix + name in data]
        if not found:
            short = [str(column).removeprefix(prefix) for column in data for prefix in PREFIXES]
            raise StudyError(unknown_name("column", name, dict.fromkeys(short)))
        if len(found) > 1 and found[0] != name:
            raise StudyError(f"{name}: could be each of {', '.join(found)}; write one of them in full")
        if found[0] in columns.values() or (name in asked[1] and name in KEY):
            raise StudyError(f"{name}: each column is one factor, metric or seed; name it once, or rename it")
        columns[name] = found[0]
    return columns


def _parsed(column: pd.Series[Any], name: str, *, needed: bool) -> pd.Series[Any]:
    """A column's values: numbers where every one is, otherwise text; a metric's are numbers."""
    values: pd.Series[Any]
    try:
        values = column.astype("float64")
    except (TypeError, ValueError) as error:
        if not needed:
            raise StudyError(f"{name}: expected a column of numbers, but {first_line(error)}") from None
        values = column.astype("string")
    if not needed:
        return values.where(np.isfinite(values))
    if (absent := values.isna()).any():
        raise StudyError(f"{name}: no value in {_rows(absent)}; fill it in, or take these runs out")
    if values.dtype == "string":
        return values
    return values.astype("int64") if (values % 1 == 0).all() else values.map(canonical)


def _rows(chosen: pd.Series[bool]) -> str:
    numbers = [str(at + 1) for at in np.flatnonzero(chosen)]
    return f"rows {', '.join(numbers[:8])}{f' and {len(numbers) - 8} more' if len(numbers) > 8 else ''}"


def _seeds(values: pd.Series[Any], name: str, arms: pd.Series[Any]) -> pd.Series[Any]:
    """The seeds that pair runs; what is no whole number is numbered 0, 1, ... in its order."""
    twice = pd.DataFrame({"arm": arms, "seed": values}).duplicated(keep=False)
    if twice.any() or (values.is_unique and arms.nunique() > 1):
        fault = f"{_rows(twice)} share levels and seed" if twice.any() else "no two runs share one"
        remedy = "name the factor in which they differ, or no seed for independent runs"
        raise StudyError(f"{name}: {fault}; {remedy}")
    return values if values.dtype == "int64" and values.min() >= 0 else pd.Series(pd.factorize(values)[0])


def _grid(levels: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]) -> dict[str, Any]:
    factors = {name: list(dict.fromkeys(own[name] for own in levels)) for name in levels[0]}
    factors = {name: own if isinstance(own[0], str) else sorted(own) for name, own in factors.items()}
    arms = list({arm_name(own): own for own in levels}.values())
    arms.sort(key=lambda arm: [factors[name].index(level) for name, level in arm.items()])
    whole = len(arms) == math.prod(map(len, factors.values()))
    for name, level in baseline.items():
        same = [own for own in factors.get(name, ()) if own == level or str(own) == str(level)]
        baseline = {**baseline, name: same[0] if same else level}
    return {"factors": factors, "only": () if whole else arms, "baseline": baseline}


def _differing(data: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """In which other columns runs differ: those where some are alike, and those where none are."""
    counts = data.drop(columns=[*used, *NAMES, *STATES], errors="ignore").map(str).nunique()
    some = ", ".join(f"{name} ({count} values)" for name, count in counts.items() if 1 < count < len(data))
    every = ", ".join(str(name) for name, count in counts.items() if count == len(data) > 1)
    return tuple(filter(None, [some, every and f"in every run, as times and results do: {every}"]))


def _failures(data: pd.DataFrame, found: pd.DataFrame) -> pd.Series[Any]:
    failures = pd.Series("", data.index).mask(found.isna().all(axis=1), f"no {' or '.join(map(str, found))}")
    for name in set(STATES) & set(data):
        states = data[name].map(str).str.lower()
        if set(states) & (DONE | UNDONE):
            failures = failures.where(states.isin(DONE), f"{name}: " + states)
    return failures


def _declared(name: str, better: str, spread: float) -> Metric:
    """How a metric is shown: as it comes, to two digits of the spread among runs of an arm."""
    known = quantity(name) if name in number_columns() else None
    if better not in ("higher", "lower", "neither") and (better or known is None):
        raise StudyError(f"{name}: say what is better, 'higher', 'lower' or 'neither'; {better!r} came")
    digits = min(max(1 - math.floor(math.log10(spread)), 0), 12) if spread > 0 else 4
    unit = known.stored_unit if known and known.factor == 1 else ""
    better = better or (known.better if known else "") or "neither"
    return Metric(better=better, label=known.label if known else name, unit=unit, digits=digits)

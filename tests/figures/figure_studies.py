"""Small studies whose figures are easily reckoned by hand: their plans, tables and drawings."""

import importlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from recorded_study import planned

from ablate.analysis.effects import effects_table
from ablate.figures import REGISTRY, Drawing, Figure, draw_figures
from ablate.figures.context import Context
from ablate.figures.theme import themed
from ablate.store.timing import case_of
from ablate.study.search import Choice, Range, Search
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables.files import Tables, frame

for module in ("effects", "images", "levels", "search", "training"):  # they register their figures
    importlib.import_module(f"ablate.figures.{module}")

EPSILONS = (0.0, 0.01, 0.1, 0.8)
ARCHS = ("seed_cnn", "xresnet18")
REDUCTIONS = ("mean", "sum", "none")
HOSTILE = ("_x:y", "$x^2$ <b>&\n", "損失 {0}", "=1+1 %s")
OTHERS = [{"epoch": float(epoch), "valid_accuracy": 0.4 + 0.05 * epoch} for epoch in range(4)]
PUBLISHED = {"source": "a table", "data": "digits", "epochs": tuple(OTHERS)}


def plan_of(factors: dict[str, tuple[Any, ...]], baseline: dict[str, Any] | None = None, **more: Any) -> Plan:
    base = {"data": "digits", "image_size": 8, **more.pop("base", {})}
    declared = {"question": "?", "name": "s", "base": base, "factors": factors, "baseline": baseline or {}}
    return planned(Study(**{**declared, "seeds": 3, **more}))


def tables_of(plan: Plan, **accuracy: float) -> Tables:
    """Complete trials whose accuracy falls from arm to arm unless it is given; each seed adds one point.

    Bins of 5, 20 and 100 images; three epochs; two classes, a tenth of each mistaken; features around them.
    """
    place = {arm: number for number, arm in enumerate(plan.arms)}
    trials, bins, epochs = [], [], []
    for trial in plan.trials:
        key: dict[str, Any] = {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}
        usual = 0.9 - 0.01 * place[trial.arm] + 0.001 * (place[trial.arm] % 3) * trial.seed
        value = accuracy.get(trial.arm, usual) + 0.01 * trial.seed**2
        measured = dict.fromkeys(("accuracy", "auroc_error", "mean_confidence"), value)
        measured |= {"nll": 1 - value, "ece": 0.1 * value, "ece_floor": 0.01, "brier": 0.2}
        step = 3.0 + 0.1 * trial.seed
        times = {"step_ms": step, "step_ms_p20": 0.9 * step, "step_ms_p80": 1.3 * step, "threads": 1}
        state = {"status": "complete", "repeat": 0}
        trials.append({**key, **trial.fields.model_dump(), **state, **measured, **times})
        for b, count in enumerate((5, 20, 100)):
            edges = {"bin": b, "lower": b / 3, "upper": (b + 1) / 3, "count": count}
            bins.append({**key, **edges, "confidence": 0.3 * b + 0.2, "accuracy": 0.3 * b + 0.1})
        for epoch in range(3):
            losses = {"train_loss": 2.0 - 0.1 * epoch, "valid_loss": 3.0 - epoch + trial.seed}
            accuracies = {"train_accuracy": 0.5, "valid_accuracy": 0.4 + 0.1 * epoch}
            epochs.append({**key, "epoch": epoch, **losses, **accuracies})
    classes = ("cat", "dog")
    confusion = [{"arm": arm, "class": true, "predicted": taken, "count": 9 if true == taken else 1}
                 for arm in plan.arms for true in classes for taken in classes]  # fmt: skip
    first = {"trial_id": plan.trials[0].trial_id, "seed": 0}
    floors = [{**first, "arm": arm, "metric": "ece", "low": 0.005, "high": 0.02} for arm in plan.arms]
    made = {"trials": trials, "reliability": bins, "epochs": epochs, "confusion": confusion, "floors": floors}
    tables = {**{name: frame(name, rows) for name, rows in made.items()}, "projection": features(plan)}
    return {**tables, "effects": effects_table(tables, plan)}


def features(plan: Plan, classes: tuple[str, ...] = ("cat", "dog"), copies: int = 1) -> pd.DataFrame:
    """Each class is four points around a centre of its own, a distance of 10 from the next."""
    ids = {trial.arm: trial.trial_id for trial in plan.trials}
    rows = [
        (ids[arm], arm, 0, split, name, 10 * place + x, y)
        for arm in plan.arms for split in ("train", "valid") for place, name in enumerate(classes)
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)) * copies
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["trial_id", "arm", "seed", "split", "class", "x", "y"])


def with_times(tables: Tables, plan: Plan, others: float = 0.0) -> Tables:
    """A pass in which `sum` takes twice and xresnet18 ten times as long."""
    rows = {}
    for trial in plan.trials:
        for loss, reduction in ((trial.fields.loss, trial.fields.reduction), ("cross_entropy", "mean")):
            case = case_of(trial).model_copy(update={"loss": loss, "reduction": reduction})
            time = (2.0 if reduction == "sum" else 1.0) * (10.0 if case.arch == "xresnet18" else 1.0)
            facts = {**case.model_dump(), "steps": 5, "others": others}
            rows[case] = [{**facts, "round": r, "step_ms": time * (1 + 0.01 * r)} for r in range(8)]
    return {**tables, "step_times": frame("step_times", [row for own in rows.values() for row in own])}


def searched(objective: tuple[str, ...] = ("accuracy", "ece"), **columns: list[Any]) -> tuple[Tables, Plan]:
    """Six points: baseline, anchor, winner, a pruned, a failed and a running one; two arms are re-run."""
    space: dict[str, Any] = {"epsilon": Range(low=0.0, high=0.5, step=0.1)}
    sampler = "nsga2" if len(objective) > 1 else "tpe"
    if len(objective) > 1:
        space |= {"lr": Range(low=1e-3, high=1.0, log=True, levels=4), "arch": Choice(of=ARCHS)}
    search = Search(space=space, objective=objective, points=6, seeds=2, sampler=sampler)
    every = [{"epsilon": 0.1 * n, "lr": 10.0 ** -(n % 4), "arch": ARCHS[n % 2]} for n in range(6)]
    levels = [{name: own[name] for name in space} for own in every]
    factors = {name: tuple(dict.fromkeys(levels[number][name] for number in (0, 2))) for name in space}
    arms = tuple(levels[number] for number in (0, 2))
    plan = plan_of(factors, arms[0], only=arms, search=search, primary=objective[0])
    nan = np.nan
    points: dict[str, list[Any]] = {
        "number": list(range(6)),
        "state": ["complete", "complete", "complete", "pruned", "failed", "running"],
        "source": ["baseline", "anchor", "sampler", "sampler", "sampler", "sampler"],
        "levels": [", ".join(f"{name}={level}" for name, level in own.items()) for own in levels],
        "value": [0.90, 0.88, 0.93, nan, nan, nan], "low": [0.89, nan, 0.92, nan, nan, nan],
        "high": [0.91, nan, 0.94, nan, nan, nan], "smoothed": [0.905, 0.89, 0.92, nan, nan, nan],
        "value_2": [0.2, 0.1, 0.3, nan, nan, nan], "low_2": [0.19, nan, 0.29, nan, nan, nan],
        "high_2": [0.21, nan, 0.31, nan, nan, nan], "smoothed_2": [0.2, 0.1, 0.3, nan, nan, nan],
        "smoothed_sd": [0.01, 0.01, 0.02, nan, nan, nan], "last_seen": [nan, nan, nan, 0.89, nan, nan],
        "winner": [False, False, True, False, False, False],
        "on_front": [False, True, True, pd.NA, pd.NA, pd.NA],
    }  # fmt: skip
    points |= {name: [own[name] for own in levels] for name in space} | columns
    done = pd.DataFrame(points)[["number", "value", "value_2"]][:3]
    values = pd.concat([done.assign(seed=seed, status="complete") for seed in (0, 1)], ignore_index=True)
    values["trial_id"] = values["number"].astype(str) + values["seed"].astype(str)
    values[["value", "value_2"]] += np.where(values[["seed"]] == 0, -0.01, 0.01)
    parts = pd.DataFrame({"field": [*space], "share": [0.2, 0.7, 0.1][: len(space)], "evaluator": "PedAnova"})
    shares = pd.concat([parts.assign(objective=name) for name in objective])
    made = {"points": pd.DataFrame(points, dtype=object), "point_values": values, "importances": shares}
    made["tuning"] = pd.DataFrame([{"points_planned": 6, "points_done": 3}])
    records: dict[str, list[Any]] = {name: table.to_dict("records") for name, table in made.items()}
    return tables_of(plan) | {name: frame(name, rows) for name, rows in records.items()}, plan


class Drawn:
    """A study's context, its figures by name, and their drawings, each made when first asked for."""

    def __init__(self, tables: Tables, plan: Plan) -> None:
        self.tables, self.plan, self.context = tables, plan, Context(tables, plan)
        self._drawings = dict[str, Drawing]()

    def but(self, **tables: pd.DataFrame) -> "Drawn":
        effects = effects_table({**self.tables, **tables}, self.plan)
        return Drawn({**self.tables, "effects": effects, **tables}, self.plan)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        return {figure.name: figure for figure in draw_figures(self.tables, self.plan)}

    def drawing(self, name: str) -> Drawing:
        with themed(self.context.words):
            for entry in REGISTRY if name not in self._drawings else []:
                for item in entry.each(self.context):
                    if entry.name.format(item) == name:
                        drawing = entry.draw(self.context, *([] if item is None else [item]))
                        self._drawings |= {name: drawing} if drawing else {}
        return self._drawings[name]

    def caption(self, name: str) -> str:
        return self.drawing(name).caption

    def legend(self, name: str) -> list[str]:
        return list(self.drawing(name).handles)

    def axes(self, name: str) -> list[Any]:
        return self.drawing(name).figure.axes


def title(ax: Any) -> str:
    return str(ax.get_title(loc="left"))


def segments(ax: Any) -> np.ndarray[Any, Any]:
    """All intervals in axes, [N, 2, 2]."""
    drawn = [lines.get_segments() for lines in ax.collections if isinstance(lines, LineCollection)]
    known = [ends for lines in drawn for ends in lines if np.size(ends) and np.isfinite(ends).all()]
    return np.reshape(known, (-1, 2, 2))


def dots(ax: Any) -> list[tuple[float, float, str]]:
    """All points in axes: place, height, colour; places and heights to six digits."""
    found = []
    for cloud in (cloud for cloud in ax.collections if isinstance(cloud, PathCollection)):
        places = np.round(np.asarray(cloud.get_offsets(), dtype=float), 6)
        colors = map(to_hex, np.resize(np.asarray(cloud.get_facecolor()), (len(places), 4)))
        found += list(zip(*places.T, colors, strict=True))
    return found


def study(factors: dict[str, tuple[Any, ...]], baseline: dict[str, Any], **more: Any) -> Drawn:
    plan = plan_of(factors, baseline, **more)
    return Drawn(tables_of(plan), plan)


def grid() -> Drawn:
    plan = plan_of({"epsilon": EPSILONS[::2], "reduction": REDUCTIONS, "arch": ARCHS}, {"reduction": "mean"})
    return Drawn(with_times(tables_of(plan), plan), plan)


MANY = tuple(f"network_{number}" for number in range(28))
SMOOTHED = {"base": {"loss": "label_smoothing"}, "published": PUBLISHED}
KINDS: dict[str, Callable[[], Drawn]] = {
    "one_factor": lambda: study({"epsilon": EPSILONS}, {"epsilon": 0.0}, **SMOOTHED),
    "grid": grid,
    "two_factors": lambda: study({"label_noise": (0.0, 0.3), "epsilon": EPSILONS}, {"epsilon": 0.0}),
    "hostile": lambda: study({"arch": HOSTILE}, {"arch": HOSTILE[0]}, published=PUBLISHED),
    "many": lambda: study({"arch": MANY}, {"arch": MANY[7]}, published=PUBLISHED),
    "alone": lambda: study({}, {}, published=PUBLISHED),
    "tuned": lambda: Drawn(*searched()),
    "tuned_one": lambda: Drawn(*searched(("accuracy",))),
}

"""Training: loss and accuracy over the epochs, our runs beside a published one, what a step costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablate.figures import draw
from ablate.figures.context import Context
from ablate.figures.draw import Handles
from ablate.figures.registry import Drawing, figure
from ablate.figures.theme import LIGHT, REFERENCE
from ablate.stats import median_interval
from ablate.store.timing import Case, plain_case

MOST_GROUPS, MOST_CURVES, MOST_LINES = 6, 18, 12
"""Groups of arms with panels of their own, curves in all panels of a metric, curves in one."""
MOST_EPOCHS = 40
"""Of longer runs, so many epochs are drawn, evenly spread, the first and the last among them."""
METRICS = (("loss", "loss (nats, as trained)", 1.0), ("accuracy", "accuracy (%)", 100.0))
DASHES = (0, (2, 1.6))
MOST_PUBLISHED = 6
PUBLISHED = (
    ("valid_accuracy", "accuracy on the reported split (%)", 100.0),
    ("train_accuracy", "training accuracy (%)", 100.0),
    ("valid_loss", "loss on the reported split (nats)", 1.0),
    ("train_loss", "training loss (nats)", 1.0),
)
MOST_ROWS, SHORT = 30, 20
"""Rows of step times; with labels of up to so many characters, the figure stands beside another."""


@figure("curves", "Training", order=90)
def curves(context: Context) -> Drawing | None:
    """Loss and accuracy in training and on the reported split; in a grid a panel per level of its axis."""
    epochs = context.rows("epochs")
    if epochs.empty:
        return None
    present = [arm for arm in context.arms if (epochs["arm"] == arm).any()]
    line_of = {arm: context.line_of(arm) if context.has_lines else context.labels[arm] for arm in present}
    beside = [context.axis, context.panel] if context.has_lines else []
    group_of = {arm: context.words_of(arm, beside) for arm in present}
    groups, _ = draw.spread(list(dict.fromkeys(group_of.values())), MOST_GROUPS)
    most = min(max(MOST_CURVES // max(len(groups), 1), 2), MOST_LINES)
    important = [line_of[arm] for arm in context.important if arm in line_of]
    lines, _ = draw.spread(list(dict.fromkeys(line_of.values())), most, important)
    kept = [arm for arm in present if line_of[arm] in lines and group_of[arm] in groups]
    columns = 2 if len(groups) <= 1 else 4
    rows = -(-2 * max(len(groups), 1) // columns)
    canvas, axes = draw.panels(rows, columns, width=draw.WIDE, height=2.9 if columns == 2 else 2.0)
    handles = Handles()
    for number, ax in enumerate(axes):
        if number >= 2 * len(groups):
            ax.set_axis_off()
            continue
        group, (name, label, factor) = groups[number // 2], METRICS[number % 2]
        for arm in (arm for arm in kept if group_of[arm] == group):
            own, color = epochs[epochs["arm"] == arm], context.colors[arm]
            handles[draw.shorten(line_of[arm])] = _draw_runs(ax, own, f"valid_{name}", factor, color, "-")
            _draw_runs(ax, own, f"train_{name}", factor, color, DASHES)
        title = f"{label}\n{draw.shorten(group, 34)}" if group else label
        ax.set_title(title, fontsize="small" if group else None)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5 if group else 8, integer=axis is ax.xaxis))
        ax.set(xlabel="epoch (0 is the first)" if number >= 2 * len(groups) - columns else "", ylabel="")
    handles = handles if len(handles) > 1 else {}
    for label, dash in (("reported split", "-"), ("training batches", DASHES)):
        handles[label] = draw.line(axes[0], [], [], LIGHT.muted, linestyle=dash)
    draw.legend_above(canvas, handles)
    caption = (
        "Means over training runs, the bands from the lowest to the highest run. Solid: reported split; "
    )
    caption += "dashed: training batches as they were seen."
    if "epsilon" in context.factors:
        caption += " With another ε the loss is another one: compare accuracies between arms, not losses."
    left_out = [context.labels[arm] for arm in present if arm not in kept]
    return Drawing(canvas, caption + draw.without(left_out), "epochs")


def _draw_runs(ax: Axes, rows: pd.DataFrame, name: str, factor: float, color: str, dash: object) -> Artist:
    """Draw the mean of an arm's runs; on the reported split with their range."""
    known = factor * rows.dropna(subset=[name]).set_index("epoch")[name].astype("float64")
    runs = known.groupby(level="epoch").agg(["mean", "min", "max"])
    if len(runs) > MOST_EPOCHS:
        runs = runs.iloc[np.linspace(0, len(runs) - 1, MOST_EPOCHS).round().astype(int)]
    if dash == "-":
        ax.fill_between(runs.index, runs["min"], runs["max"], color=color, alpha=0.15, linewidth=0)
    style = {"linestyle": dash, "linewidth": 1.5, "marker": "o" if len(runs) == 1 else None}
    return draw.line(ax, runs.index, runs["mean"], color, **style)


@figure("published", "Beside the published run", order=95)
def published(context: Context) -> Drawing | None:
    """Every training run beside the published table, and where one more run of ours would lie."""
    epochs = context.rows("epochs")
    if context.complete.empty or context.plan.study.published is None:
        return None
    summary, values = context.published
    present = [arm for arm in context.arms if (epochs["arm"] == arm).any()]
    arms, left_out = present[:MOST_PUBLISHED], present[MOST_PUBLISHED:]
    canvas, axes = draw.panels(2, 2, width=draw.WIDE, height=2.6)
    handles = Handles()
    for ax, (name, label, factor) in zip(axes, PUBLISHED, strict=True):
        for number, arm in enumerate(arms):
            color, own = context.colors[arm], values[(values["name"] == name) & (values["arm"] == arm)]
            runs = epochs[(epochs["arm"] == arm) & epochs[name].notna()]
            words = "ours, each training run" if len(arms) == 1 else draw.shorten(context.labels[arm])
            each: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.8, "units": runs["trial_id"].to_numpy()}
            heights = factor * runs[name].astype("float64")
            handles[words] = draw.line(ax, runs["epoch"], heights, color, **each)
            low, high = ([factor * getattr(ours, end) for ours in own["ours"]] for end in ("low", "high"))
            ax.fill_between(own["epoch"].astype("int64"), low, high, color=color, alpha=0.18, linewidth=0)
            outside = own[own["inside"].eq(False)]
            ring: dict[str, Any] = {"markersize": 8 + 2.5 * number, "markerfacecolor": "none"}
            ax.plot(outside["epoch"], factor * outside["theirs"], "o", markeredgecolor=color, **ring)
        theirs = values[(values["name"] == name) & values["theirs"].notna()].drop_duplicates("epoch")
        if not theirs.empty:
            style = {"marker": "D", "markersize": 3.5, **REFERENCE}
            (handles["published"],) = ax.plot(theirs["epoch"], factor * theirs["theirs"], **style)
        ax.set_title(label)
        ax.set(xlabel="epoch (0 is the first)", ylabel="")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    draw.legend_above(canvas, handles)
    caption = (
        "Thin lines are our training runs, bands the 95 % prediction interval of one more, diamonds the "
        "published run; those in a ring lie outside the band."
    )
    return Drawing(canvas, caption + draw.without(map(context.labels.get, left_out)), "epochs", summary)


@figure("step_time", "Time of a training step", order=80)
def step_time(context: Context) -> Drawing | None:
    """Medians with their ranges, a row per arm; where steps were timed apart, per case."""
    if context.complete.empty:
        return None
    return _from_pass(context) if context.cases else _from_trials(context)


def _from_pass(context: Context) -> Drawing:
    timing, arms_of = context.timing, dict[Case, list[str]]()
    for arm, case in context.cases.items():
        arms_of.setdefault(case, []).append(arm)
    labels = {case: context.shared_label(arms) for case, arms in arms_of.items()}
    shown, left_out = list(labels)[:MOST_ROWS], list(labels)[MOST_ROWS:]
    canvas, (times, ratios) = draw.panels(1, 2, width=draw.WIDE, height=0.2 + 0.36 * len(shown), sharey=True)
    handles: Handles = {"as long": ratios.axvline(1, **REFERENCE)}
    for place, case in enumerate(shown):
        plain = plain_case(case)
        own = median_interval(timing.times[plain])
        rows = [(times, own, place + 0.16, LIGHT.muted, "D", "plain cross-entropy")]
        if case != plain:
            own, ratio = median_interval(timing.times[case]), timing.ratio(case, plain)
            rows.append((times, own, place - 0.16, LIGHT.ink, "o", "the study's loss"))
            rows.append((ratios, ratio, float(place), LIGHT.ink, "o", "the study's loss"))
            beside = ratios.get_yaxis_transform()
            ratios.text(1.02, place, f"{ratio.median:.3f} ×", transform=beside, va="center")
        for ax, median, at, color, marker, label in rows:
            draw.intervals(ax, [at], [median.low], [median.high], color, linewidth=2, across=True)
            handles[label] = draw.dots(ax, [median.median], [at], color, marker=marker, size=6)
    draw.rows_of(times, [labels[case] for case in shown])
    times.set_xlim(left=0)
    for ax, title in ((times, "training step (ms)"), (ratios, "times as long as with plain cross-entropy")):
        ax.set_title(title)
        ax.grid(visible=False, axis="y")
    draw.legend_above(canvas, handles)
    caption = (
        "Timed after the trials, one case after the other in turn: medians over rounds with 95 % intervals. "
        "Arms whose steps do the same work are one row; ratios are to plain cross-entropy with the same "
        "network and batch."
    )
    if not timing.exclusive:
        part = "an unknown part" if timing.others is None else f"{timing.others:.0%}"
        caption += f" Other processes used {part} of the machine's cores meanwhile."
    return Drawing(canvas, caption + draw.without(map(labels.get, left_out)), "timing")


def _from_trials(context: Context) -> Drawing:
    columns = ["step_ms", "step_ms_p20", "step_ms_p80"]
    known = context.complete.dropna(subset=["step_ms"]).astype(dict.fromkeys(columns, "float64"))
    present = [arm for arm in context.arms if (known["arm"] == arm).any()]
    arms, left_out = present[:MOST_ROWS], present[MOST_ROWS:]
    width = draw.HALF if all(len(context.labels[arm]) <= SHORT for arm in arms) else draw.WIDE
    canvas, (ax,) = draw.panels(1, 1, width=width, height=0.25 + 0.3 * max(len(arms), 1))
    medians = known.groupby("arm")[columns].median().reindex(arms)
    colors = [context.colors[arm] for arm in arms]
    places, runs = {arm: place for place, arm in enumerate(arms)}, known[known["arm"].isin(arms)]
    ends = medians["step_ms_p20"], medians["step_ms_p80"]
    draw.intervals(ax, range(len(arms)), *ends, colors, linewidth=3, alpha=0.45, across=True)
    of_runs = [context.colors[arm] for arm in runs["arm"]]
    draw.dots(ax, runs["step_ms"], runs["arm"].map(places), of_runs, size=3.5, alpha=0.5)
    draw.dots(ax, medians["step_ms"], range(len(arms)), colors, size=6)
    draw.rows_of(ax, [context.labels[arm] for arm in arms])
    ax.set_xlim(left=0)
    ax.set_title("training step (ms)")
    caption = (
        "Median over training runs of their median step; the bar spans the 20th to the 80th percentile, and "
        "faint points are single runs. Other trials may have shared the machine."
    )
    return Drawing(canvas, caption + draw.without(map(context.labels.get, left_out)), "trials")

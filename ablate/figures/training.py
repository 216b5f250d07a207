"""Training: loss and accuracy over the epochs, our runs beside a published one, what a step costs."""

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablate.analysis.published import Value, published_summaries, published_values
from ablate.figures import Drawing, draw, figure, of_rows
from ablate.figures.context import Context, spread
from ablate.figures.draw import Handles
from ablate.figures.theme import LIGHT, REFERENCE
from ablate.stats.intervals import median_interval
from ablate.store.timing import Case, plain_case
from ablate.tables.quantities import quantity

MOST_GROUPS, MOST_CURVES, MOST_LINES, MOST_EPOCHS = 6, 18, 12, 40
"""Groups of arms with panels of their own, curves in all panels of a metric, curves in one, epochs of one."""
METRICS = (("loss", "loss (nats, as trained)", 1.0), ("accuracy", "accuracy (%)", 100.0))
DASHED: Any = (0, (2, 1.6))
EPOCH = "epoch (0 is the first)"
PUBLISHED = ("valid_accuracy", "train_accuracy", "valid_loss", "train_loss")
MOST_PUBLISHED, MOST_ROWS = 6, 30  # arms beside the published run, rows of step times


@figure("curves", "Training", order=90, each=of_rows("epochs"))
def curves(context: Context, epochs: pd.DataFrame) -> Drawing:
    """Loss and accuracy in training and on the reported split; in a grid a panel per level of its axis."""
    present, _ = context.fitting(epochs, len(context.arms))
    line_of = {arm: (context.line_of if context.has_lines else context.labels)[arm] for arm in present}
    beside = [context.axis, context.panel] if context.has_lines else []
    group_of = {arm: context.words_of(arm, beside) for arm in present}
    groups, _ = spread(list(dict.fromkeys(group_of.values())), MOST_GROUPS)
    most = min(max(MOST_CURVES // len(groups), 2), MOST_LINES)
    important = [line_of[arm] for arm in context.important if arm in line_of]
    lines, _ = spread(list(dict.fromkeys(line_of.values())), most, important)
    kept = [arm for arm in present if line_of[arm] in lines and group_of[arm] in groups]
    alone = len(groups) == 1
    columns, height = (2, 2.9) if alone else (4, 2.0)
    canvas, axes = draw.panels(2 * len(groups), columns=columns, height=height, xlabel=EPOCH)
    late = epochs[epochs["epoch"] >= epochs.groupby("arm")["epoch"].transform("max") // 4]
    late, handles = late[late["arm"].isin(kept)], Handles()
    for number, ax in enumerate(axes):
        group, (name, label, factor) = groups[number // 2], METRICS[number % 2]
        for arm in (arm for arm in kept if group_of[arm] == group):
            own, color = epochs[epochs["arm"] == arm], context.colors[arm]
            handles[draw.shorten(line_of[arm])] = _draw_runs(ax, own, f"valid_{name}", factor, color, "-")
            _draw_runs(ax, own, f"train_{name}", factor, color, DASHED)
        shown = late.loc[late["arm"].map(group_of) == group, [f"valid_{name}", f"train_{name}"]]
        ax.set_ylim(draw.view_limits(factor * shown.astype("float64")))
        title = f"{label}\n{draw.shorten(group, 34)}" if group else label
        ax.set_title(title, fontsize=None if alone else "small")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8 if alone else 5, integer=True))
    handles = handles if len(handles) > 1 else {}
    handles["reported split"] = Line2D([], [], color=LIGHT.muted)
    handles["training batches"] = Line2D([], [], color=LIGHT.muted, linestyle=DASHED)
    caption = (
        "Means over training runs, the bands from the lowest to the highest run. Solid: reported split; "
        "dashed: training batches as they were seen. What is far off at the start lies outside."
    )
    if "epsilon" in context.factors:
        caption += " With another ε the loss is another one: compare accuracies between arms, not losses."
    left_out = [context.labels[arm] for arm in present if arm not in kept]
    return Drawing(canvas, caption, "epochs", handles, left_out)


def _draw_runs(ax: Axes, rows: pd.DataFrame, name: str, factor: float, color: str, dash: Any) -> Line2D:
    """Draw the mean of an arm's runs; on the reported split with their range."""
    known = factor * rows.dropna(subset=[name]).set_index("epoch")[name].astype("float64")
    runs = known.groupby(level="epoch").agg(["mean", "min", "max"])
    if len(runs) > MOST_EPOCHS:
        runs = runs.iloc[np.linspace(0, len(runs) - 1, MOST_EPOCHS).round().astype(int)]
    if dash == "-":
        ax.fill_between(runs.index, runs["min"], runs["max"], color=color, alpha=0.15, linewidth=0)
    marker = "o" if len(runs) == 1 else None
    (line,) = ax.plot(runs.index, runs["mean"], color=color, linestyle=dash, linewidth=1.5, marker=marker)
    return line


@figure("published", "Beside the published run", order=95)
def published(context: Context) -> Drawing | None:
    """Every training run beside the published table, and where one more run of ours would lie."""
    epochs = context.rows("epochs")
    if context.complete.empty or context.plan.study.published is None:
        return None
    values = pd.DataFrame(published_values(epochs, context.plan), columns=Value._fields)
    arms, left_out = context.fitting(epochs, MOST_PUBLISHED)
    canvas, axes = draw.panels(4, columns=2, height=2.6, xlabel=EPOCH)
    handles = Handles()
    for ax, name in zip(axes, PUBLISHED, strict=True):
        factor = quantity(name).factor
        compared = values[values["name"] == name]
        compared = compared.assign(theirs=factor * compared["theirs"])
        for number, arm in enumerate(arms):
            words = "ours, each training run" if len(arms) == 1 else draw.shorten(context.labels[arm])
            color, runs = context.colors[arm], epochs[(epochs["arm"] == arm) & epochs[name].notna()]
            for _, run in runs.sort_values("epoch").groupby("trial_id"):
                heights = factor * run[name].astype("float64")
                (handles[words],) = ax.plot(run["epoch"], heights, color=color, linewidth=1.0, alpha=0.8)
            own = compared[compared["arm"] == arm]
            low, high = ([factor * getattr(ours, end) for ours in own["ours"]] for end in ("low", "high"))
            ax.fill_between(own["epoch"].astype("int64"), low, high, color=color, alpha=0.18, linewidth=0)
            outside = own[own["inside"].eq(False)]
            ring: dict[str, Any] = {"markersize": 8 + 2.5 * number, "markerfacecolor": "none"}
            ax.plot(outside["epoch"], outside["theirs"], "o", markeredgecolor=color, **ring)
        theirs = compared.dropna(subset="theirs").drop_duplicates("epoch")
        if len(theirs):
            style = {"marker": "D", "markersize": 3.5, **REFERENCE}
            (handles["published"],) = ax.plot(theirs["epoch"], theirs["theirs"], **style)
        ax.set_title(quantity(name).axis)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    caption = (
        "Thin lines are our training runs, bands the 95 % prediction interval of one more, diamonds the "
        "published run; those in a ring lie outside the band."
    )
    facts = " ".join(published_summaries(epochs, context.plan).values())
    return Drawing(canvas, caption, "epochs", handles, left_out, facts)


@figure("step_time", "Time of a training step", order=80)
def step_time(context: Context) -> Drawing | None:
    """Medians with their intervals, a row per case that was timed apart."""
    if not context.cases:
        return None
    timing, arms_of = context.timing, defaultdict[Case, list[str]](list)
    for arm, case in context.cases.items():
        arms_of[case].append(arm)
    cases, left_out = spread(list(arms_of), MOST_ROWS)
    canvas, (times, ratios) = draw.panels(2, height=0.2 + 0.36 * len(cases), sharey=True)
    handles: Handles = {"as long": ratios.axvline(1, **REFERENCE)}
    for place, case in enumerate(cases):
        plain = plain_case(case)
        usual, loss = (LIGHT.muted, "D", "plain cross-entropy"), (LIGHT.ink, "o", "the study's loss")
        rows = [(times, median_interval(timing.times[plain]), place + 0.16, *usual)]
        if case != plain:
            ratio = timing.ratio(case, plain)
            rows.append((times, median_interval(timing.times[case]), place - 0.16, *loss))
            rows.append((ratios, ratio, float(place), *loss))
            beside = ratios.get_yaxis_transform()
            ratios.text(1.02, place, f"{ratio.median:.3f} ×", transform=beside, va="center")
        for ax, median, at, color, marker, label in rows:
            ax.hlines(at, median.low, median.high, colors=color, linewidth=2)
            handles[label] = draw.dots(ax, [median.median], [at], color, marker=marker, size=6)
    draw.rows_of(times, [_shared_label(context, arms_of[case]) for case in cases])
    times.set_xlim(left=0)
    for ax, title in ((times, "training step (ms)"), (ratios, "times as long as with plain cross-entropy")):
        ax.set_title(title)
        ax.grid(visible=False, axis="y")
    caption = (
        "Timed after the trials, one case after the other in turn: medians over rounds with 95 % intervals. "
        "Arms whose steps do the same work are one row; ratios are to plain cross-entropy with the same "
        "network and batch."
    )
    if not timing.exclusive:
        part = "an unknown part" if timing.others is None else f"{timing.others:.0%}"
        caption += f" Other processes used {part} of the machine's cores meanwhile."
    others = [_shared_label(context, arms_of[case]) for case in left_out]
    return Drawing(canvas, caption, "timing", handles, others)


def _shared_label(context: Context, arms: list[str]) -> str:
    """What several arms have in common, in words."""
    levels = [context.arms[arm].levels for arm in arms]
    same = [name for name in context.factors if all(own[name] == levels[0][name] for own in levels)]
    shared = context.labels[arms[0]] if len(arms) == 1 else context.words_of(arms[0], same)
    return shared or f"all {len(arms)} arms"

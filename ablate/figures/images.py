"""What networks say of single images: reliability, confusion of classes, features in a plane."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import ArrayLike

from ablate.analysis.arms import level_label
from ablate.figures import Drawing, draw, figure, of_rows
from ablate.figures.context import Context, spread
from ablate.figures.draw import Handles
from ablate.figures.theme import LIGHT, MARKERS, PALETTE, REFERENCE, TINTS
from ablate.stats.intervals import FloatArray
from ablate.tables.quantities import few

MOST_DIAGRAMS = 12
SPARSE = ((50, 0.75), (10, 0.4), (1, 0.14))  # opacity of bins of so many images or more
STRIP = 20.0  # height of the strip of counts below a diagram, in points of accuracy
MOST_CELLS, MOST_NAMED, LONGEST_CLASS = (100, 60), 12, 16
"""Cells of a panel, the largest, of few classes and of more than columns can name; characters of a name."""
COLORS = ListedColormap(
    [LIGHT.tint(1, step) for step in reversed(range(TINTS))] + [LIGHT.tint(0, step) for step in range(TINTS)]
)
"""From much that is wrong, deep orange, to much that is right, deep blue."""
RIGHT = 0.47  # how deep the cells of right predictions are: all alike
MOST_ARMS, MOST_CLASSES, MOST_POINTS = 4, 6, 1000  # of the features; points in all, marks each
SPLITS = {"train": "training images", "valid": "reported split"}


@figure("reliability", "Reliability", order=50, each=of_rows("reliability"))
def reliability(context: Context, table: pd.DataFrame) -> Drawing:
    """Accuracy by confidence, the gap between the two, and below it how many images a bin has."""
    arms, left_out = context.fitting(table, MOST_DIAGRAMS)
    look: Any = {"width": draw.WIDE if len(arms) > 2 else draw.HALF, "sharex": True, "sharey": True}
    look |= {"xlabel": "confidence (%)", "ylabel": "accuracy (%)"}
    canvas, axes = draw.panels(len(arms), height=2.4, **look)
    bins = {arm: pooled(table[table["arm"] == arm]) for arm in arms}
    most = max((int(own["count"].max()) for own in bins.values()), default=1) or 1
    for ax, arm in zip(axes, arms, strict=True):
        _draw_bins(ax, bins[arm], context.colors[arm], most)
        ax.set_title(draw.shorten(context.labels[arm], 36), fontsize="small")
    axes[0].set(xlim=(0, 100), ylim=(-STRIP - 6, 101), xticks=(0, 50, 100), yticks=(0, 50, 100))
    tone = context.colors[arms[0]] if len({context.colors[arm] for arm in arms}) == 1 else LIGHT.muted
    handles: Handles = {
        "accuracy": Patch(color=tone, alpha=SPARSE[0][1], linewidth=0),
        "mean confidence": Line2D([], [], color=LIGHT.ink, linewidth=1.4),
        "perfect calibration": Line2D([], [], **REFERENCE),
        f"images (at most {most:,})": Patch(color=LIGHT.muted, alpha=0.55, linewidth=0),
    }
    caption = (
        "Accuracy by confidence, training runs pooled: a bar as high as the bin's accuracy, a line at its "
        "mean confidence, grey between the two. Below, images per bin: bins of fewer than 50 are pale, "
        "those of fewer than 10 hardly seen, as they say little."
    )
    return Drawing(canvas, caption, "reliability", handles, left_out)


def pooled(bins: pd.DataFrame) -> pd.DataFrame:
    """One arm's bins over all its training runs: lower, upper, confidence and accuracy in percent; count."""
    means = ["confidence", "accuracy"]
    sums = bins.assign(**bins[means].mul(bins["count"], axis=0).fillna(0.0)).groupby("bin")
    totals = sums[["count", *means]].sum().astype("float64")
    shares = totals[means].div(totals["count"].where(totals["count"] > 0), axis=0)
    edges = sums[["lower", "upper"]].first().astype("float64")
    return pd.concat([100 * edges, totals["count"].astype(int), 100 * shares], axis=1)


def _draw_bins(ax: Axes, bins: pd.DataFrame, color: str, most: int) -> None:
    fewer = bins["count"].max() + 1
    for fewest, opacity in SPARSE:
        own = bins[(bins["count"] >= fewest) & (bins["count"] < fewer)]
        fewer = fewest
        if own.empty:
            continue
        _bars(ax, own, 0.0, own["accuracy"], facecolor=color, alpha=opacity)
        _bars(ax, own, own["accuracy"], own["confidence"], facecolor=LIGHT.muted, alpha=0.4 * opacity)
        ends = np.column_stack([own["lower"], own["upper"], np.full(len(own), np.nan)]).ravel()
        ax.plot(ends, np.repeat(own["confidence"], 3), color=LIGHT.ink, alpha=opacity)
    floor = -STRIP - 4
    _bars(ax, bins, floor, floor + STRIP * bins["count"] / most, facecolor=LIGHT.muted, alpha=0.55)
    ax.plot([0, 100], [0, 100], **REFERENCE)
    ax.axhline(0, color=LIGHT.muted, linewidth=0.8)


def _bars(ax: Axes, bins: pd.DataFrame, bottom: ArrayLike, top: ArrayLike, **style: Any) -> None:
    """Bars as one path, because a path for each makes the file several times as large."""
    left, right = bins["lower"] + 0.4, bins["upper"] - 0.4
    low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), left.shape) for end in (bottom, top))
    corners = np.array([[left, right, right, left], [low, low, high, high]]).T
    ax.add_patch(PathPatch(Path.make_compound_path_from_polys(corners), linewidth=0, **style))


@figure("confusion", "Confusion of classes", order=60, each=of_rows("confusion"))
def confusion(context: Context, table: pd.DataFrame) -> Drawing:
    """Percent of each class's images taken for each class, in a baseline and the best arm; the difference."""
    arms = [arm for arm in context.contrasted if (table["arm"] == arm).any()]
    words = {name: level_label(name) for name in table["class"].unique()}
    shares = []
    for arm in arms:
        own = table[table["arm"] == arm].pivot_table("count", "class", "predicted", aggfunc="sum")
        own = own.reindex(index=list(words), columns=list(words))
        cells = own.to_numpy(dtype=np.float64, na_value=0.0)
        shares.append(100 * cells / np.maximum(cells.sum(axis=1, keepdims=True), 1))
    right, compared = np.eye(len(words), dtype=bool), len(shares) == 2
    worst = max(5.0, *(float(np.where(right, 0, share).max()) for share in shares))
    titles = [f"{draw.shorten(context.labels[arm])} (%)" for arm in arms]
    depths = [np.where(right, RIGHT, -np.minimum(share / worst, 1)) for share in shares]
    panels = list(zip(titles, shares, depths, strict=True))
    if compared:
        difference = shares[1] - shares[0]
        depth = np.where(right, 1, -1) * difference / max(float(np.abs(difference).max()), 2.0)
        panels.append(("second − first (points)", difference, depth))
    canvas, axes = draw.panels(len(panels), height=3.2 if compared else 4.2)
    for ax, (title, cells, depth) in zip(axes, panels, strict=True):
        _draw_cells(ax, cells, depth, [draw.shorten(name, LONGEST_CLASS) for name in words.values()])
        ax.set_title(title)
        ax.tick_params(labelleft=ax is axes[0])
    axes[0].set_ylabel("class")
    which = "the baseline and the arm with the best mean of the primary metric" if compared else "one arm"
    caption = f"Rows are the classes of the images, columns what they were taken for: {which}, runs pooled. "
    caption += "Blue cells are right, orange ones mistakes; small ones are left blank."
    if compared:
        caption += " In the last panel blue: the second arm errs less often there; orange: more often."
    return Drawing(canvas, caption, "confusion")


def _draw_cells(ax: Axes, table: FloatArray, depth: FloatArray, names: list[str]) -> None:
    """Draw the largest cells: their numbers, over colours from -1 (wrong) to 1 (right)."""
    size, many = np.abs(table), len(names) > MOST_NAMED
    most = min(MOST_CELLS[many], table.size)
    blank = (np.round(size) < 1) | (size < np.sort(size, axis=None)[-most])  # no cell says 0
    form = "+.0f" if table.min() < 0 else ".0f"
    words = [[format(value, form).replace("-", "−") for value in row] for row in table]
    font = 8.5 if len(names) <= 10 else 6.5 if len(names) <= 14 else 5.5
    text = {"annot": np.array(words), "fmt": "", "annot_kws": {"color": LIGHT.ink, "fontsize": font}}
    plain = {"cbar": False, "square": True, "xticklabels": False, "yticklabels": False}
    sns.heatmap(depth, mask=blank, cmap=COLORS, vmin=-1, vmax=1, ax=ax, **text, **plain)
    numbers, centres = [str(number + 1) for number in range(len(names))], np.arange(len(names)) + 0.5
    numbered = [f"{number} {name.strip()}" for number, name in zip(numbers, names, strict=True)]
    columns, rows = (numbers, numbered) if many else (names, names)
    ax.set_xticks(centres, columns, rotation=0 if max(map(len, columns)) <= 2 else 90)
    ax.set_yticks(centres, rows, rotation=0)
    ax.set_xlabel("predicted")
    ax.tick_params(labelsize="small", length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)


@figure("projection", "Features of single images", order=70, each=of_rows("projection"))
def projection(context: Context, known: pd.DataFrame) -> Drawing | None:
    """Penultimate features in a plane, after figure 1 of Müller et al., https://arxiv.org/abs/1906.02629."""
    if (known := known.dropna(subset=["x", "y"])).empty:
        return None
    arms, left_out = context.fitting(known, MOST_ARMS)
    classes, others = spread(list(dict.fromkeys(known["class"])), MOST_CLASSES)
    shown = known[known["class"].isin(classes)]
    splits = [split for split in SPLITS if (known["split"] == split).any()]
    side = min(draw.WIDE / len(arms), 4.0)
    most = max(MOST_POINTS // (len(arms) * len(splits) * len(classes)), 1)
    panels = list(itertools.product(splits, arms))
    canvas, axes = draw.panels(len(panels), columns=len(arms), width=side * len(arms), height=side - 0.3)
    handles, distances = Handles(), []
    for ax, (split, arm) in zip(axes, panels, strict=True):
        of_arm = shown[shown["arm"] == arm]
        own = of_arm[of_arm["split"] == split]
        for name, color, marker in zip(classes, PALETTE, MARKERS, strict=False):
            cloud = own[own["class"] == name]
            kept = np.unique(np.linspace(0, max(len(cloud) - 1, 0), most).astype(int))
            cloud, label = cloud.iloc[kept[: len(cloud)]], draw.shorten(level_label(name))
            look: Any = {"marker": marker, "size": 4.2, "alpha": 0.65}
            handles[label] = draw.dots(ax, cloud["x"], cloud["y"], color, **look)
        low, high = (of_arm[["x", "y"]].agg(end).to_numpy(dtype=np.float64) for end in ("min", "max"))
        ends = ((low + high) / 2)[:, None] + np.array([-1, 1]) * (0.54 * (high - low).max() or 1.0)
        ax.set(xlim=ends[0], ylim=ends[1], aspect="equal", xticks=[], yticks=[])
        ax.set_ylabel(SPLITS[split] if arm == arms[0] else "")
        label = draw.shorten(context.labels[arm], max(12, round(10 * side)))
        ax.set_title(label if split == splits[0] else "")
        ax.spines[:].set_visible(True)
        distances.append(f"{context.labels[arm]}, {SPLITS[split]}: {spread_of(own):.2f}")
    caption = (
        "What the last layer sees of single images, projected to a plane; one training run per arm, a "
        "sample of the images. Tight, separate groups are classes whose images look alike to the network. "
        "Each arm has its own axes."
    )
    caption += f" Classes left out: {few(list(map(level_label, others)))}." if others else ""
    facts = f"Mean distance to the class's centre over that between centres: {'; '.join(distances)}."
    return Drawing(canvas, caption, "projection", handles, left_out, facts)


def spread_of(rows: pd.DataFrame) -> float:
    """Mean distance of images to their class's centre over that between centres; NaN for one class."""
    places = rows.groupby("class")[["x", "y"]]
    centres = places.mean().to_numpy(dtype=np.float64)
    around = (rows[["x", "y"]] - places.transform("mean")).to_numpy(dtype=np.float64)
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(len(centres), 1)]
    mean = float(apart.mean()) if len(apart) else 0.0
    return float(np.linalg.norm(around, axis=1).mean()) / mean if mean > 0 else float("nan")

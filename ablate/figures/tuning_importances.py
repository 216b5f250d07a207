"""How much each searched field decides whether a point is among the best of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import HALF, capped, legend_above, not_drawn, shorten

MOST_FIELDS = 20


@dataclass(frozen=True)
class TuningImportances:
    """What the figure shows.

    Attributes:
        fields: in words, the one that matters most for the first objective first.
        shares: objective in words to a share per field, from 0 to 1; [fields].
        left_out: fields that did not fit.
    """

    fields: tuple[str, ...]
    shares: tuple[tuple[str, tuple[float, ...]], ...]
    left_out: tuple[str, ...] = ()


def prepare_tuning_importances(
    importances: pd.DataFrame, fields: Mapping[str, str], objectives: Mapping[str, str]
) -> TuningImportances:
    """Order the fields.

    Args:
        importances: one row per objective and field: objective, field, share.
        fields: field to its words.
        objectives: objective to its words, in the order to draw them.
    """
    columns = (importances["objective"], importances["field"], importances["share"])
    share = {(objective, name): float(part) for objective, name, part in zip(*columns, strict=True)}
    known = [name for name in objectives if any(objective == name for objective, _ in share)]
    names = [name for name in fields if any(field == name for _, field in share)]
    names.sort(key=lambda name: [-share.get((objective, name), 0.0) for objective in known])
    kept, left_out = capped(names, MOST_FIELDS)
    shares = tuple(
        (objectives[objective], tuple(share.get((objective, name), 0.0) for name in kept))
        for objective in known
    )
    return TuningImportances(
        tuple(fields[name] for name in kept), shares, tuple(fields[name] for name in left_out)
    )


def tuning_importances_size(data: TuningImportances) -> tuple[float, float]:
    """Inches that the bars need."""
    return (HALF[0], 1.2 + 0.22 * max(len(data.fields) * (1 + len(data.shares)), 6))


def draw_tuning_importances(data: TuningImportances, ax: Axes) -> Axes:
    """Draw a bar per field and objective, the field that matters most at the top."""
    height = 0.8 / max(len(data.shares), 1)
    for number, (words, shares) in enumerate(data.shares):
        places = [row + (number - (len(data.shares) - 1) / 2) * height for row in range(len(shares))]
        ax.barh(places, shares, height=0.85 * height, color=f"C{number}",
                label=words if len(data.shares) > 1 else None)  # fmt: skip
        for place, share in zip(places, shares, strict=True):
            ax.text(share, place, f" {share:.2f}", va="center", fontsize=9)
    ax.set_yticks(range(len(data.fields)), [shorten(name, 24) for name in data.fields])
    ax.set_ylim(max(len(data.fields), 1) - 0.4, -0.6)
    ax.set_xlim(0, 1.12 * max((share for _, shares in data.shares for share in shares), default=1.0) or 1.0)
    ax.set_title("importance (scaled to sum to 1)")
    ax.grid(visible=False, axis="y")
    legend_above(ax)
    return ax


def describe_tuning_importances(data: TuningImportances) -> str:
    """The figure in words, for those who do not see it."""
    if not data.shares:
        return "Importance of the searched fields: not computed."
    parts = [
        f"For {words}: "
        + ", ".join(f"{name} {share:.2f}" for name, share in zip(data.fields, shares, strict=True))
        for words, shares in data.shares
    ]
    about = "Importance of the searched fields, scaled to sum to 1"
    return f"{about}. {'. '.join(parts)}.{not_drawn(data.left_out)}"

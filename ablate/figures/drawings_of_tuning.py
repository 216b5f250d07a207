"""Figures of a search: its history, its fields, their importances, its front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.tuning import SUFFIXES, Tuned, read_search
from ablate.figures.drawing import Drawing, not_drawn
from ablate.study.search import Choice, Range
from ablate.study.trials import Plan
from ablate.tables import Tables

if TYPE_CHECKING:
    from ablate.figures.tuning_front import FrontPoint
    from ablate.figures.tuning_history import Scored
    from ablate.figures.tuning_slices import TuningSlice

POINTS = "Each point is the mean over its seeds on the tuning split, with its 95 % t interval."
BEST_PART, BEST_POINTS = 0.1, 5
"""Of the points, how many PED-ANOVA takes for the best: this part, and at least so many."""
FEW_POINTS = 30
BEYOND = " Points much worse than the rest are arrows at the edge; long intervals go on beyond the panel."


def tuning_drawings(tables: Tables, plan: Plan) -> Iterator[tuple[str, str, Callable[[], Drawing]]]:
    """Name, title and preparation of every figure of a search; none where nothing was tuned."""
    tuned = read_search(tables, plan)
    if tuned is None or tuned.points["value"].notna().sum() == 0:
        return
    for place, what in enumerate(tuned.objectives):
        more = f": {what.label}" if len(tuned.objectives) > 1 else ""
        yield f"tuning_history{SUFFIXES[place]}", f"The search{more}", partial(history_drawing, tuned, place)
        yield f"tuning_slices{SUFFIXES[place]}", f"By field{more}", partial(slices_drawing, tuned, place)
    if len(tuned.search.space) > 1 and not tuned.importances.empty:
        yield "tuning_importances", "Importance of the fields", partial(importances_drawing, tuned)
    if len(tuned.objectives) > 1:
        yield "tuning_front", "The two objectives of the search", partial(front_of_tuning_drawing, tuned)


def history_drawing(tuned: Tuned, place: int) -> Drawing:
    """The points in their order."""
    from ablate.figures import HALF, describe_tuning_history, draw_tuning_history, prepare_tuning_history

    what = tuned.objectives[place]
    points = tuned.scores(place)
    if place:
        points = points.assign(last_seen=float("nan"))  # what a pruner saw is of the first
    data = prepare_tuning_history(
        points,
        _runs(tuned, place),
        label=what.axis,
        higher_is_better=what.better == "higher",
        unit_factor=what.factor,
    )
    caption = f"{POINTS} The line is the best smoothed value among the points so far, all points known."
    return Drawing(
        caption + _short_of_seeds(data.points) + BEYOND,
        describe_tuning_history(data),
        lambda figure: draw_tuning_history(data, figure.subplots()),
        (HALF[0], HALF[1] + 0.4),
    )


def slices_drawing(tuned: Tuned, place: int) -> Drawing:
    """An objective against every searched field."""
    from ablate.figures import (
        HALF,
        describe_tuning_slices,
        draw_tuning_slices,
        prepare_tuning_slices,
        tuning_slices_size,
    )

    data = prepare_tuning_slices([_slice(tuned, name, place) for name in tuned.search.space])
    alone = len(tuned.search.space) == 1
    smooth = (
        "The line is the value smoothed over the points, the band its 95 %."
        if alone
        else "Dashes are values smoothed over all searched fields at once."
    )
    caption = f"{POINTS} Faint points are single training runs. {smooth}"
    if any(panel.scale == "category" for panel in data.panels):
        caption += " Within a value without order, points stand side by side in the order of the search."
    if any(dimension.when for dimension in tuned.search.space.values()):
        caption += " A field with a condition shows the points that use it."
    caption += _short_of_seeds([point for panel in data.panels for point in panel.points])
    size = tuning_slices_size(data)
    return Drawing(
        caption + BEYOND + not_drawn(data.left_out),
        describe_tuning_slices(data),
        lambda figure: draw_tuning_slices(data, figure),
        size,
        wide=size[0] > HALF[0],
    )


def _slice(tuned: Tuned, name: str, place: int) -> TuningSlice:
    from ablate.figures import prepare_slice

    what, dimension = tuned.objectives[place], tuned.search.space[name]
    points = tuned.scores(place)
    levels = [tuned.levels(row).get(name) for _, row in points.iterrows()]
    used = [level is not None for level in levels]
    points = points.assign(level=_column(levels, dimension))[used]
    return prepare_slice(
        points,
        _runs(tuned, place),
        label=what.axis,
        field=factor_label(name),
        higher_is_better=what.better == "higher",
        categories=[level_label(value) for value in dimension.of] if isinstance(dimension, Choice) else None,
        log=isinstance(dimension, Range) and dimension.log,
        alone=len(tuned.search.space) == 1,
        unit_factor=what.factor,
    )


def _runs(tuned: Tuned, place: int) -> pd.DataFrame:
    """The training runs with one objective under the plain name."""
    return tuned.values.assign(value=tuned.values[f"value{SUFFIXES[place]}"])


def _short_of_seeds(points: Iterable[Scored | FrontPoint]) -> str:
    """What is said where single runs stand in the place of intervals."""
    from ablate.figures.tuning_history import FEW_SEEDS, LONG

    if not any(point.runs for point in points):
        return ""
    return (
        f" Where fewer than {FEW_SEEDS} seeds give an interval longer than {LONG:g} times the range of the "
        "points' means, the point's single runs are shown in its place."
    )


def _column(levels: list[Any], dimension: Range | Choice) -> pd.Series[Any]:
    if isinstance(dimension, Range):
        return pd.Series(levels, dtype="float64")
    return pd.Series([None if level is None else level_label(level) for level in levels], dtype="string")


def importances_drawing(tuned: Tuned) -> Drawing:
    """How much each field decides whether a point is among the best."""
    from ablate.figures import (
        describe_tuning_importances,
        draw_tuning_importances,
        prepare_tuning_importances,
        tuning_importances_size,
    )

    data = prepare_tuning_importances(
        tuned.importances,
        {name: factor_label(name) for name in tuned.search.space},
        {what.name: what.label for what in tuned.objectives},
    )
    evaluators = ", ".join(dict.fromkeys(tuned.importances["evaluator"]))
    points = int(tuned.facts["points_done"])
    caption = (
        f"How much each field decides whether a point is among the best: {_best_in_words(points)}, by "
        f"Optuna's {evaluators}. The numbers are scaled to sum to 1; they are no shares of the objective's "
        "spread, and speak of this search alone."
    )
    if points < FEW_POINTS:
        caption += f" With fewer than {FEW_POINTS} points, as here, much in them is noise."
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_tuning_importances(data),
        lambda figure: draw_tuning_importances(data, figure.subplots()),
        tuning_importances_size(data),
    )


def _best_in_words(points: int) -> str:
    if BEST_PART * points > BEST_POINTS:
        return f"the best {100 * BEST_PART:.0f} % of {points} complete points"
    return f"the best {BEST_POINTS} of {points} complete points"


def front_of_tuning_drawing(tuned: Tuned) -> Drawing:
    """The two objectives against each other."""
    from ablate.figures import (
        describe_tuning_front,
        draw_tuning_front,
        prepare_tuning_front,
        tuning_front_size,
    )

    first, second = tuned.objectives
    data = prepare_tuning_front(
        tuned.points,
        tuned.values,
        dict(zip(tuned.points["number"], tuned.points["label"], strict=True)),
        labels=(first.axis, second.axis),
        higher=(first.better == "higher", second.better == "higher"),
        factors=(first.factor, second.factor),
    )
    caption = (
        "Means over seeds on the tuning split with 95 % t intervals. The line joins the smoothed values that "
        "no other point beats in both objectives; faint points are beaten. Points far off are outside."
    )
    return Drawing(
        caption + _short_of_seeds(data.points),
        describe_tuning_front(data),
        lambda figure: draw_tuning_front(data, figure.subplots()),
        tuning_front_size(data),
    )

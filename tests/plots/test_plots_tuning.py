"""A search's figures: what is prepared of small tables whose answer is plain; all draw and are in words."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ablate.figures import (
    describe_tuning_front,
    describe_tuning_history,
    describe_tuning_importances,
    describe_tuning_slices,
    draw_tuning_front,
    draw_tuning_history,
    draw_tuning_importances,
    draw_tuning_slices,
    figure_svg,
    prepare_slice,
    prepare_tuning_front,
    prepare_tuning_history,
    prepare_tuning_importances,
    prepare_tuning_slices,
    tuning_front_size,
    tuning_importances_size,
    tuning_slices_size,
)
from ablate.figures.tuning_history import Scored, focused_limits
from ablate.figures.tuning_slices import MOST_PANELS

nan = math.nan
RUNS = pd.DataFrame({"number": [0, 0, 1, 2, 3], "value": [0.89, 0.91, 0.88, 0.93, 0.80]})
FRONT_RUNS = RUNS.assign(value_2=[0.19, 0.21, 0.1, 0.3, nan])


def is_drawn(draw: Callable[[Figure], Any]) -> bool:
    return all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in figure_svg(draw))


def points(**columns: list[Any]) -> pd.DataFrame:
    """Six points: baseline, anchor, a winner, a pruned one, a failed one, one that is still running."""
    table: dict[str, list[Any]] = {
        "number": [0, 1, 2, 3, 4, 5],
        "state": ["complete", "complete", "complete", "pruned", "failed", "running"],
        "role": ["baseline", "anchor", "winner", "sampler", "sampler", "sampler"],
        "value": [0.90, 0.88, 0.93, nan, nan, nan],
        "low": [0.89, nan, 0.92, nan, nan, nan],
        "high": [0.91, nan, 0.94, nan, nan, nan],
        "smoothed": [0.905, 0.89, 0.92, nan, nan, nan],
        "smoothed_sd": [0.01, 0.01, 0.02, nan, nan, nan],
        "last_seen": [nan, nan, nan, 0.80, nan, nan],
    }
    return pd.DataFrame({**table, **columns})


def test_a_history_has_points_the_best_so_far_and_what_was_lost() -> None:
    data = prepare_tuning_history(
        points().iloc[::-1], RUNS, label="Accuracy (%)", higher_is_better=True, unit_factor=100
    )
    assert [(p.x, p.role) for p in data.points] == [(0, "baseline"), (1, "anchor"), (2, "winner")]
    assert [p.mean for p in data.points] == pytest.approx([90, 88, 93])
    assert data.points[0].low == pytest.approx(89)
    np.testing.assert_allclose(data.best, [(0, 90.5), (1, 90.5), (2, 92), (3, 92), (4, 92), (5, 92)])
    np.testing.assert_allclose(data.pruned, [(3, 80)])
    assert data.lost == (4.0,)  # failed; the running one may still get a value
    words = describe_tuning_history(data)
    assert (
        "winner, point 2: 93; best smoothed value so far: 90.5 from point 0, 92 from point 2; 1 pruned"
        in words
    )
    assert is_drawn(lambda figure: draw_tuning_history(data, figure.subplots()))


def test_the_best_so_far_is_the_least_where_less_is_better() -> None:
    data = prepare_tuning_history(points(), RUNS, label="ECE", higher_is_better=False)
    assert [height for _, height in data.best] == pytest.approx([0.905, 0.89, 0.89, 0.89, 0.89, 0.89])


def test_a_search_without_a_complete_point_says_so() -> None:
    data = prepare_tuning_history(points().iloc[3:], RUNS, label="Accuracy (%)", higher_is_better=True)
    assert (data.points, data.best) == ((), ())
    assert describe_tuning_history(data).endswith("no point is complete.")
    assert is_drawn(lambda figure: draw_tuning_history(data, figure.subplots()))


def test_more_points_than_intervals_have_room_for_are_drawn() -> None:
    many = pd.concat([points().iloc[:3]] * 60, ignore_index=True).assign(number=range(180))
    data = prepare_tuning_history(many, RUNS, label="Accuracy", higher_is_better=True)
    assert len(data.points) == 180
    assert is_drawn(lambda figure: draw_tuning_history(data, figure.subplots()))


def at(value: float) -> Scored:
    return Scored(0, value, nan, nan, "sampler")


def test_much_worse_points_do_not_squeeze_the_others() -> None:
    good = [at(0.95 + 0.001 * number) for number in range(10)]
    low, high = focused_limits([*good, at(0.1)], [], higher_is_better=True)
    assert low > 0.9
    assert high == pytest.approx(0.96, abs=0.01)
    low, high = focused_limits([*good, at(7.0)], [], higher_is_better=False)
    assert (low > 0.9, high < 1.0) == (True, True)
    # The other way about they are the best, and in the picture.
    assert focused_limits([*good, at(7.0)], [], higher_is_better=True)[1] > 7
    assert focused_limits([at(0.5)], [], higher_is_better=True)[0] < 0.5
    data = prepare_tuning_history(
        points(value=[0.1, 0.92, 0.93, nan, nan, nan], low=[nan] * 6, high=[nan] * 6, smoothed=[nan] * 6),
        RUNS,
        label="Accuracy", higher_is_better=True,
    )  # fmt: skip
    assert is_drawn(lambda figure: draw_tuning_history(data, figure.subplots()))


def test_an_interval_much_longer_than_the_values_goes_on_beyond() -> None:
    low, high = focused_limits(
        [Scored(0, 0.9, -3.0, 5.0, "sampler"), Scored(0, 1.0, 0.9, 1.1, "sampler")], [], higher_is_better=True
    )
    assert (low, high) == pytest.approx((0.84, 1.06))


def test_a_slice_has_runs_means_and_a_curve_in_the_order_of_its_field() -> None:
    table = points(level=[0.3, 0.1, 0.2, 0.4, 0.5, 0.0])
    panel = prepare_slice(
        table, RUNS, label="Accuracy (%)", field="ε", higher_is_better=True, alone=True, unit_factor=100
    )
    assert [(p.x, p.role) for p in panel.points] == [(0.3, "baseline"), (0.1, "anchor"), (0.2, "winner")]
    np.testing.assert_allclose(panel.runs, [(0.3, 89), (0.3, 91), (0.1, 88), (0.2, 93)])
    expected = [(0.1, 89, 89 - 1.96, 89 + 1.96), (0.2, 92, 92 - 3.92, 92 + 3.92), (0.3, 90.5, 88.54, 92.46)]
    np.testing.assert_allclose(panel.smooth, expected)
    assert (panel.scale, panel.joined) == ("linear", True)
    data = prepare_tuning_slices([panel])
    assert "Accuracy (%) against ε, 3 points; smoothed values 89 to 92. baseline at 0.3: 90" in (
        describe_tuning_slices(data)
    )
    assert is_drawn(lambda figure: draw_tuning_slices(data, figure))


def test_categories_stand_in_their_order_their_points_side_by_side() -> None:
    table = points(level=["b", "a", "b", "b", "a", "c"], value=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    panel = prepare_slice(
        table, RUNS, label="Accuracy", field="arch", higher_is_better=True, categories=["a", "b", "c"]
    )
    assert panel.ticks == ((0.0, "a"), (1.0, "b"), (2.0, "c"))
    assert [p.x for p in panel.points] == pytest.approx([0.8, -0.15, 1.0, 1.2, 0.15, 2.0])
    assert (panel.scale, panel.joined) == ("category", False)
    data = prepare_tuning_slices([panel])
    assert "winner at b: 0.7" in describe_tuning_slices(data)
    assert is_drawn(lambda figure: draw_tuning_slices(data, figure))


def test_a_logarithmic_field_is_drawn_so_and_panels_that_do_not_fit_are_named() -> None:
    panels = [
        prepare_slice(points(level=[1e-4, 1e-2, 1.0, 1e-3, 1e-1, 1.0]), RUNS, label="Accuracy", field=f"f{n}",
                      higher_is_better=True, log=True)
        for n in range(MOST_PANELS + 1)
    ]  # fmt: skip
    empty = prepare_slice(
        points(level=[nan] * 6), RUNS, label="Accuracy", field="unused", higher_is_better=True
    )
    data = prepare_tuning_slices([empty, *panels])
    assert (len(data.panels), data.left_out) == (MOST_PANELS, (f"f{MOST_PANELS}",))
    assert data.panels[0].scale == "log"
    assert describe_tuning_slices(data).endswith(f"Not drawn: f{MOST_PANELS}.")
    svg, _ = figure_svg(lambda figure: draw_tuning_slices(data, figure), size=tuning_slices_size(data))
    assert b"mathdefault" not in svg
    nothing = prepare_tuning_slices([empty])
    assert "no point is complete" in describe_tuning_slices(nothing)
    assert is_drawn(lambda figure: draw_tuning_slices(nothing, figure))


def test_importances_are_ordered_by_the_first_objective() -> None:
    table = pd.DataFrame(
        {
            "objective": ["accuracy"] * 3 + ["ece"] * 2,
            "field": ["lr", "epsilon", "arch", "lr", "epsilon"],
            "share": [0.2, 0.7, 0.1, 0.9, 0.1],
        }
    )
    fields = {"lr": "lr", "epsilon": "ε", "arch": "arch", "epochs": "epochs"}
    data = prepare_tuning_importances(table, fields, {"accuracy": "Accuracy", "ece": "ECE", "nll": "NLL"})
    assert data.fields == ("ε", "lr", "arch")
    assert data.shares == (("Accuracy", (0.7, 0.2, 0.1)), ("ECE", (0.1, 0.9, 0.0)))
    assert "For Accuracy: ε 0.70, lr 0.20, arch 0.10. For ECE" in describe_tuning_importances(data)
    assert tuning_importances_size(data)[1] > 2
    assert is_drawn(lambda figure: draw_tuning_importances(data, figure.subplots()))
    none = prepare_tuning_importances(table[:0], fields, {"accuracy": "Accuracy"})
    assert describe_tuning_importances(none).endswith("not computed.")
    assert is_drawn(lambda figure: draw_tuning_importances(none, figure.subplots()))


def front(**columns: list[Any]) -> pd.DataFrame:
    second = {f"{name}_2": [0.2, 0.1, 0.3, nan, nan, nan] for name in ("value", "low", "high", "smoothed")}
    flags = pd.array([False, True, True, pd.NA, pd.NA, pd.NA], dtype="boolean")
    return points(**second, **columns).assign(on_front=flags)


def test_a_front_names_its_winners_and_leaves_out_points_without_values() -> None:
    words = {number: f"ε=0.{number}" for number in range(6)}
    data = prepare_tuning_front(
        front(),
        FRONT_RUNS,
        words,
        labels=("Accuracy (%)", "ECE (%)"),
        higher=(True, False),
        factors=(100, 100),
    )
    assert [p.label for p in data.points] == ["ε=0.0", "ε=0.1", "ε=0.2"]
    assert data.points[2].first == pytest.approx((93, 92, 94))
    assert data.points[2].second == pytest.approx((30, 30, 30))
    assert data.points[2].smooth == pytest.approx((92, 30))
    assert [p.on_front for p in data.points] == [False, True, True]
    said = describe_tuning_front(data)
    assert "(more is better) against ECE (%) (less is better), 3 points. winner ε=0.2: 93 and 30" in said
    assert "on the front of the smoothed values: ε=0.1 (88, 10), ε=0.2 (93, 30)" in said
    svg, _ = figure_svg(
        lambda figure: draw_tuning_front(data, figure.subplots()), size=tuning_front_size(data)
    )
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_a_front_without_points_says_so() -> None:
    data = prepare_tuning_front(
        front().iloc[3:], FRONT_RUNS, {}, labels=("Accuracy", "ECE"), higher=(True, False), factors=(1, 1)
    )
    assert describe_tuning_front(data).endswith("no point is complete.")
    assert is_drawn(lambda figure: draw_tuning_front(data, figure.subplots()))


def test_the_line_of_the_front_goes_through_what_can_be_had() -> None:
    """At an error below the front's least there is nothing; from a point on, its accuracy."""
    figure = Figure()
    data = prepare_tuning_front(
        front(),
        FRONT_RUNS,
        dict.fromkeys(range(6), "p"),
        labels=("a", "e"),
        higher=(True, False),
        factors=(1, 1),
    )
    ax = draw_tuning_front(data, figure.subplots())
    (line,) = [line for line in ax.lines if line.get_label() == "front of the smoothed values"]
    np.testing.assert_allclose(np.array(line.get_xydata(), dtype=float), [(0.1, 0.89), (0.3, 0.92)])
    assert line.get_drawstyle() == "steps-post"


def long_points() -> pd.DataFrame:
    """Means from 0.88 to 0.93; the first interval is longer than three times that, the third is not."""
    return points(low=[0.50, nan, 0.89, nan, nan, nan], high=[1.30, nan, 0.97, nan, nan, nan])


def test_single_runs_stand_in_place_of_a_long_interval_of_few_seeds() -> None:
    data = prepare_tuning_history(
        long_points(), RUNS, label="Accuracy (%)", higher_is_better=True, unit_factor=100
    )
    first, _, third = data.points
    assert first.runs == pytest.approx((89, 91))
    assert (math.isnan(first.low), math.isnan(first.high)) == (True, True)
    assert third.runs == ()
    assert third.low == pytest.approx(89)
    assert is_drawn(lambda figure: draw_tuning_history(data, figure.subplots()))


def test_an_interval_of_many_seeds_stays_however_long() -> None:
    many = pd.DataFrame({"number": [0] * 4, "value": [0.89, 0.91, 0.90, 0.90]})
    data = prepare_tuning_history(long_points(), many, label="Accuracy", higher_is_better=True)
    assert (data.points[0].runs, data.points[0].low) == ((), 0.50)
    # A single point leaves nothing to measure its interval by.
    alone = prepare_tuning_history(long_points().iloc[:1], RUNS, label="Accuracy", higher_is_better=True)
    assert alone.points[0].low == 0.50


def test_slices_and_fronts_leave_long_intervals_out_too() -> None:
    table = long_points().assign(level=[0.3, 0.1, 0.2, 0.4, 0.5, 0.0])
    panel = prepare_slice(table, RUNS, label="Accuracy", field="ε", higher_is_better=True)
    assert [math.isnan(p.low) for p in panel.points] == [True, True, False]
    wide = front().assign(low=long_points()["low"], high=long_points()["high"])
    data = prepare_tuning_front(
        wide, FRONT_RUNS, dict.fromkeys(range(6), "p"), labels=("a", "e"), higher=(True, False),
        factors=(1, 100),
    )  # fmt: skip
    first = data.points[0]
    np.testing.assert_allclose(first.runs, [(0.89, 19), (0.91, 21)])
    assert math.isnan(first.first[1])
    assert first.second == pytest.approx((20, 20, 20))
    assert data.points[2].runs == ()
    assert is_drawn(lambda figure: draw_tuning_front(data, figure.subplots()))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("level", [1e-4, 0.1, 64.0])
def test_a_single_point_is_drawn_without_a_warning(level: float, log: bool) -> None:
    panel = prepare_slice(
        points(level=[level] * 6).iloc[:1], RUNS, label="Accuracy", field="lr", higher_is_better=True, log=log
    )
    assert is_drawn(lambda figure: draw_tuning_slices(prepare_tuning_slices([panel]), figure))

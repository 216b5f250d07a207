"""What each figure shows, from small tables whose answer is plain, and that it draws and is put in words."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from ablate.figures import (
    describe_curves,
    describe_metric_by_level,
    describe_metric_by_seed,
    describe_published,
    describe_reliability,
    describe_step_time,
    draw_curves,
    draw_metric_by_level,
    draw_metric_by_seed,
    draw_published,
    draw_reliabilities,
    draw_reliability,
    draw_step_time,
    figure_svg,
    prepare_curves,
    prepare_metric_by_level,
    prepare_metric_by_seed,
    prepare_published,
    prepare_reliability,
    prepare_step_time,
    reliability_size,
    step_time_size,
)
from ablate.stats import Interval

nan = math.nan


def error_bars(ax: Axes) -> ErrorbarContainer:
    (found,) = ax.containers
    assert isinstance(found, ErrorbarContainer)
    return found


def is_drawn(draw: Callable[[Figure], Any]) -> bool:
    return all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in figure_svg(draw))


def means(levels: list[Any], lines: list[str], floor: list[float] | None = None) -> pd.DataFrame:
    rows = [
        (level, line, 0.5 + 0.1 * i)
        for i, (level, line) in enumerate((le, li) for li in lines for le in levels)
    ]
    data = pd.DataFrame(rows, columns=["level", "line", "mean"])
    data = data.assign(low=data["mean"] - 0.01, high=data["mean"] + 0.02)
    return data if floor is None else data.assign(floor=floor)


def runs(data: pd.DataFrame) -> pd.DataFrame:
    both = [data.assign(value=data["mean"] + shift) for shift in (-0.005, 0.005)]
    return pd.concat(both)[["level", "line", "value"]]


def test_levels_become_places_and_values_the_shown_unit() -> None:
    table = means([0.0, 0.1, 0.4], [""])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="Accuracy (%)", unit_factor=100)
    (line,) = data.lines
    assert (data.scale, data.ticks) == ("linear", ((0.0, "0"), (0.1, "0.1"), (0.4, "0.4")))
    assert line.mean == pytest.approx((50.0, 60.0, 70.0))
    assert line.low == pytest.approx((49.0, 59.0, 69.0))
    assert line.high == pytest.approx((52.0, 62.0, 72.0))
    expected = sorted((x, m + s) for x, m in zip(line.x, line.mean, strict=True) for s in (-0.5, 0.5))
    np.testing.assert_allclose(sorted(line.runs), expected)


@pytest.mark.parametrize(
    ("levels", "scale"),
    [
        ([0.0, 0.1], "linear"),
        ([0.001, 0.1], "log"),
        ([0.1, 0.4], "linear"),
        ([0.0, 1000.0], "linear"),  # no logarithm of 0
        ([5], "linear"),
        (["mean", "sum"], "category"),
        ([False, True], "category"),
        ([1, "auto"], "category"),
    ],
)
def test_the_axis_fits_the_levels(levels: list[Any], scale: str) -> None:
    table = means(levels, ["a", "b"])
    data = prepare_metric_by_level(table, runs(table), factor="f", label="m")
    assert data.scale == scale
    assert is_drawn(lambda figure: draw_metric_by_level(data, figure.subplots()))
    if scale == "category":
        assert [place for place, _ in data.ticks] == [0.0, 1.0]


def test_one_line_per_combination_and_those_that_do_not_fit_are_named() -> None:
    table = means([0.0, 0.1], [f"arch={name}" for name in "abcdefghij"])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="m")
    assert [line.label for line in data.lines] == [f"arch={name}" for name in "abdefgij"]
    assert [line.number for line in data.lines] == list(range(8))
    assert data.left_out == ("arch=c", "arch=h")
    assert "Not drawn: arch=c, arch=h." in describe_metric_by_level(data)


def test_the_floor_is_the_mean_over_lines_at_each_level() -> None:
    table = means([0.0, 0.1], ["a", "b"], floor=[0.01, 0.02, 0.03, nan])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="ECE (%)", unit_factor=100)
    np.testing.assert_allclose(data.floor, ((0.0, 2.0), (0.1, 2.0)))
    assert "Mean noise floor 2 to 2." in describe_metric_by_level(data)


def banded(levels: list[Any]) -> pd.DataFrame:
    """One line with a floor of 2 % in a band that gets wider from level to level."""
    floor = [0.02] * len(levels)
    ends = [(0.01 - 0.001 * i, 0.04 + 0.01 * i) for i in range(len(levels))]
    return means(levels, [""], floor=floor).assign(
        floor_low=[low for low, _ in ends], floor_high=[high for _, high in ends]
    )


def shades(ax: Any) -> list[tuple[float, float, float, float]]:
    """Left, right, lower and upper end of each shaded area."""
    found = [area.get_paths()[0].get_extents() for area in ax.collections if isinstance(area, PolyCollection)]
    return [(box.x0, box.x1, box.y0, box.y1) for box in found]


def test_the_band_of_the_floor_is_shaded_and_not_what_lies_below() -> None:
    table = banded([0.0, 0.1, 0.4])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="ECE (%)", unit_factor=100)
    np.testing.assert_allclose(data.band, [(0.0, 1.0, 4.0), (0.1, 0.9, 5.0), (0.4, 0.8, 6.0)])
    ax = draw_metric_by_level(data, Figure().subplots())
    assert shades(ax) == [pytest.approx((0.0, 0.4, 0.8, 6.0))]
    assert ax.get_ylim()[0] < 0.8
    assert describe_metric_by_level(data).endswith(
        "Mean noise floor 2 to 2. 95 % of means of a perfectly calibrated network would fall in "
        "0: 1 to 4, 0.1: 0.9 to 5, 0.4: 0.8 to 6."
    )


def test_without_a_band_the_shade_ends_at_the_floor() -> None:
    table = banded([0.0, 0.1]).drop(columns=["floor_low", "floor_high"])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="ECE (%)", unit_factor=100)
    assert data.band == ()
    ax = draw_metric_by_level(data, Figure().subplots())
    assert shades(ax) == [pytest.approx((0.0, 0.1, 0.0, 2.0))]
    assert "calibrated" not in describe_metric_by_level(data)


@pytest.mark.parametrize("levels", [["a", "b"], [0.1]])
def test_levels_that_stand_alone_have_their_own_piece_of_the_band(levels: list[Any]) -> None:
    table = banded(levels)
    data = prepare_metric_by_level(table, runs(table), factor="arch", label="ECE (%)", unit_factor=100)
    ax = draw_metric_by_level(data, Figure().subplots())
    pieces = shades(ax)
    assert [piece[2:] for piece in pieces] == [
        pytest.approx((1.0 - 0.1 * i, 4.0 + i)) for i in range(len(levels))
    ]
    assert all(left < x < right for (x, _), (left, right, *_) in zip(data.ticks, pieces, strict=True))


def test_the_band_is_the_mean_over_lines_at_each_level() -> None:
    table = means([0.0, 0.1], ["a", "b"], floor=[0.02] * 4).assign(
        floor_low=[0.01, 0.02, 0.03, nan], floor_high=[0.05, 0.06, 0.07, nan]
    )
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="ECE (%)", unit_factor=100)
    np.testing.assert_allclose(data.band, [(0.0, 2.0, 6.0), (0.1, 2.0, 6.0)])


def test_arms_without_results_are_not_drawn() -> None:
    table = means([0.0, 0.1], [""])
    table.loc[1, ["mean", "low", "high"]] = nan
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="m")
    assert [text for _, text in data.ticks] == ["0"]
    nothing = prepare_metric_by_level(table[1:], runs(table[1:]), factor="ε", label="m")
    assert describe_metric_by_level(nothing) == "m against ε: no complete trials."
    assert is_drawn(lambda figure: draw_metric_by_level(nothing, figure.subplots()))


def test_an_interval_that_is_not_known_is_drawn_as_none() -> None:
    table = means([0.0, 0.1], [""]).assign(low=nan, high=nan)
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="m")
    ax = draw_metric_by_level(data, Figure().subplots())
    segments = [segment for lines in error_bars(ax).lines[2] for segment in lines.get_segments()]
    assert all(np.ptp(segment[:, 1]) == 0 for segment in segments)


def test_means_are_drawn_where_the_data_are() -> None:
    table = means([0.0, 0.1, 0.4], [""])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="m")
    ax = draw_metric_by_level(data, Figure().subplots())
    line = error_bars(ax).lines[0]
    assert line is not None
    np.testing.assert_array_equal(line.get_xdata(), data.lines[0].x)
    np.testing.assert_array_equal(line.get_ydata(), data.lines[0].mean)
    low, high = ax.get_ylim()
    assert low < min(data.lines[0].low)
    assert high > max(data.lines[0].high)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "0.1", "0.4"]


def test_tick_labels_that_would_touch_are_left_blank() -> None:
    table = means([0.0, 0.001, 0.05, 1.0], [""])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="m")
    ax = draw_metric_by_level(data, Figure().subplots())
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "", "", "1"]


def test_words_give_every_mean() -> None:
    table = means([0.0, 0.1], ["arch=a", "arch=b"])
    data = prepare_metric_by_level(table, runs(table), factor="ε", label="Accuracy (%)", unit_factor=100)
    assert describe_metric_by_level(data) == (
        "Accuracy (%), mean by ε. arch=a: 0: 50, 0.1: 60; arch=b: 0: 70, 0.1: 80."
    )


def test_runs_by_seed_stand_in_order_with_mean_and_band() -> None:
    table = pd.DataFrame({"seed": [7, 2, 5], "value": [0.6, 0.5, nan]})
    data = prepare_metric_by_seed(table, (0.55, 0.4, 0.7), label="ECE (%)", unit_factor=100, floor=0.1)
    assert data.seeds == (2, 7)
    assert data.values == pytest.approx((50.0, 60.0))
    assert (data.mean, data.low, data.high, data.floor) == pytest.approx((55.0, 40.0, 70.0, 10.0))
    assert describe_metric_by_seed(data) == (
        "ECE (%) by seed. 2: 50, 7: 60. Mean 55 (95 % interval 40 to 70). Noise floor 10."
    )
    ax = draw_metric_by_seed(data, Figure().subplots())
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "7"]


def test_runs_by_seed_stand_beside_the_band_of_the_floor() -> None:
    table = pd.DataFrame({"seed": [0, 1], "value": [0.05, 0.06]})
    data = prepare_metric_by_seed(
        table, (0.055, nan, nan), label="ECE (%)", unit_factor=100, floor=0.02, band=(0.01, 0.04)
    )
    ax = draw_metric_by_seed(data, Figure().subplots())
    (band,) = ax.patches
    box = band.get_extents().transformed(ax.transData.inverted())
    assert (box.y0, box.y1) == pytest.approx((1.0, 4.0))
    assert describe_metric_by_seed(data).endswith(
        "Noise floor 2. 95 % of means of a perfectly calibrated network would fall in 1 to 4."
    )


def test_one_run_or_none_has_no_band() -> None:
    one = prepare_metric_by_seed(pd.DataFrame({"seed": [0], "value": [0.5]}), (0.5, nan, nan), label="m")
    assert not draw_metric_by_seed(one, Figure().subplots()).patches
    assert describe_metric_by_seed(one) == "m by seed. 0: 0.5. Mean 0.5."
    none = prepare_metric_by_seed(pd.DataFrame({"seed": [], "value": []}), (nan, nan, nan), label="m")
    assert describe_metric_by_seed(none) == "m: no complete trials."
    assert is_drawn(lambda figure: draw_metric_by_seed(none, figure.subplots()))


def bins(arms: list[str], count: tuple[int, int, int] = (0, 10, 30)) -> pd.DataFrame:
    """Two runs per arm of three bins, the first empty, the second run with more images."""
    rows = [
        (arm, seed, b, b / 3, (b + 1) / 3, n * (seed + 1), nan if n == 0 else (0.5, 0.5, 0.9)[b],
         nan if n == 0 else (0.5, 0.4, 0.8)[b] + 0.1 * seed)
        for arm in arms for seed in (0, 1) for b, n in enumerate(count)
    ]  # fmt: skip
    names = ["arm", "seed", "bin", "lower", "upper", "count", "confidence", "accuracy"]
    return pd.DataFrame(rows, columns=names).astype({"count": "Int64"})


def test_runs_are_pooled_image_by_image() -> None:
    (panel,) = prepare_reliability(bins(["x"]), {"x": "ε=0"}).panels
    assert (panel.label, panel.seeds, panel.count) == ("ε=0", 2, (0, 30, 90))
    assert panel.accuracy[1:] == pytest.approx(((10 * 0.4 + 20 * 0.5) / 30, (30 * 0.8 + 60 * 0.9) / 90))
    assert panel.confidence[1:] == pytest.approx((0.5, 0.9))
    assert math.isnan(panel.accuracy[0])
    assert math.isnan(panel.confidence[0])
    assert panel.gap == pytest.approx((30 * 0.5 + 90 * 0.9 - 14 - 78) / 120)


def test_at_most_twelve_panels_the_important_ones_among_them_and_the_others_are_named() -> None:
    labels = {f"arm{i}": f"ε={i}" for i in range(14)}
    data = prepare_reliability(bins(list(labels)), {"absent": "none", **labels}, important=["arm4"])
    drawn = {panel.label for panel in data.panels}
    assert len(drawn) == 12
    assert {"ε=0", "ε=4", "ε=13"} <= drawn
    assert [panel.label for panel in data.panels] == [name for name in labels.values() if name in drawn]
    assert set(data.left_out) == set(labels.values()) - drawn
    assert describe_reliability(data).endswith(f"Not drawn: {', '.join(data.left_out)}.")


@pytest.mark.parametrize("arms", [0, 1, 2, 3, 5, 7, 12])
def test_any_number_of_panels_draws(arms: int) -> None:
    names = [f"a{i}" for i in range(arms)]
    data = prepare_reliability(bins(names), {name: name for name in names})
    figure = Figure(figsize=reliability_size(data))
    draw_reliabilities(data, figure)
    assert sum(ax.axison for ax in figure.axes) == 2 * arms


def test_the_bars_are_the_accuracy_and_the_gap() -> None:
    (panel,) = prepare_reliability(bins(["x"]), {"x": "x"}).panels
    ax = draw_reliability(panel, Figure().subplots())
    corners = [np.asarray(bar.get_path().vertices).reshape(-1, 5, 2) for bar in ax.patches]
    heights = [bars[:, 1:3, 1].flatten() for bars in corners]
    accuracy, confidence = (100 * np.array(values[1:]) for values in (panel.accuracy, panel.confidence))
    bars = np.stack([0 * accuracy, accuracy], axis=1), np.stack([accuracy, confidence], axis=1)
    np.testing.assert_allclose(heights, [both.flatten() for both in bars])


def test_reliability_in_words_says_which_way_the_confidence_errs() -> None:
    over = bins(["x"]).assign(accuracy=lambda rows: rows["confidence"] - 0.125)
    under = bins(["y"]).assign(accuracy=lambda rows: rows["confidence"] + 0.05)
    empty = bins(["z"], count=(0, 0, 0))
    data = prepare_reliability(pd.concat([over, under, empty]), {"x": "X", "y": "Y", "z": "Z"})
    assert describe_reliability(data) == (
        "Reliability diagrams, training runs pooled per arm. X: confidence 12.5 points more than accuracy; "
        "Y: confidence 5.0 points less than accuracy; Z: no images."
    )
    assert is_drawn(lambda figure: draw_reliabilities(data, figure))


def epochs(arms: list[str]) -> pd.DataFrame:
    rows = [
        (f"{arm}{seed}", arm, seed, e, 2.0 - e + seed, 0.5 + 0.1 * e, 3.0 - e, 0.4 + 0.1 * e + 0.02 * seed)
        for arm in arms for seed in (0, 1) for e in (0, 1)
    ]  # fmt: skip
    names = [
        "trial_id",
        "arm",
        "seed",
        "epoch",
        "train_loss",
        "train_accuracy",
        "valid_loss",
        "valid_accuracy",
    ]
    return pd.DataFrame(rows, columns=names)


def test_curves_are_means_with_the_range_of_runs() -> None:
    data = prepare_curves(epochs(["x"]), {"x": "ε=0"})
    assert [panel.label for panel in data.panels] == ["loss (nats, as trained)", "accuracy (%)"]
    train_loss, valid = data.panels[0].arms[0].train, data.panels[1].arms[0].valid
    assert train_loss.epoch == (0, 1)
    ranges = [train_loss.mean, train_loss.low, train_loss.high]
    np.testing.assert_allclose(ranges, [(2.5, 1.5), (2.0, 1.0), (3.0, 2.0)])
    assert valid.mean == pytest.approx((41.0, 51.0))
    assert describe_curves(data) == (
        "Loss and accuracy over the epochs, means over training runs. ε=0: last accuracy 60 % in training "
        "and 51 % on the reported split, training loss 1.5."
    )


@pytest.mark.parametrize("arms", [0, 1, 14])
def test_any_number_of_curves_draws(arms: int) -> None:
    names = [f"a{i:02}" for i in range(arms)]
    data = prepare_curves(epochs(names), {name: name for name in names})
    assert len(data.lines) == min(arms, 12)
    assert sorted([*data.lines, *data.left_out]) == names
    assert is_drawn(lambda figure: draw_curves(data, figure))
    assert len(describe_curves(data)) > 20


def test_curves_of_two_factors_have_panels_of_their_own_and_one_colour_per_level() -> None:
    places = {f"{g}{e}": (f"arch={g}", f"ε={e}") for g in "xy" for e in (0, 1)}
    present = [arm for arm in places if arm != "y0"]
    data = prepare_curves(epochs(present), {arm: arm for arm in places}, places)
    assert data.lines == ("ε=0", "ε=1")
    numbers = [(panel.group, [arm.number for arm in panel.arms]) for panel in data.panels[::2]]
    assert numbers == [("arch=x", [0, 1]), ("arch=y", [1])]
    assert "ε=1, arch=y: last accuracy" in describe_curves(data)
    assert is_drawn(lambda figure: draw_curves(data, figure))


def test_curves_of_many_groups_keep_the_first_and_the_last_level() -> None:
    places = {f"{g}{e}": (f"arch={g}", f"ε={e}") for g in range(9) for e in range(5)}
    data = prepare_curves(epochs(list(places)), {arm: arm for arm in places}, places)
    assert data.lines == ("ε=0", "ε=4")
    assert [len(panel.arms) for panel in data.panels] == [2] * 12
    assert len(data.left_out) == 45 - 12


def test_long_runs_are_thinned_but_keep_both_ends() -> None:
    rows = pd.DataFrame({"arm": "x", "epoch": range(200), "train_loss": 1.0, "valid_loss": 1.0,
                         "train_accuracy": 0.5, "valid_accuracy": 0.5})  # fmt: skip
    epoch = prepare_curves(rows, {"x": "x"}).panels[0].arms[0].train.epoch
    assert (len(epoch), epoch[0], epoch[-1]) == (40, 0, 199)


def times(arms: list[str]) -> pd.DataFrame:
    rows = [(arm, step, 0.9 * step, 1.3 * step) for arm in arms for step in (4.0, 5.0, 9.0)]
    rows += [(arm, nan, nan, nan) for arm in arms]
    return pd.DataFrame(rows, columns=["arm", "step_ms", "step_ms_p20", "step_ms_p80"])


def test_step_times_are_medians_over_runs() -> None:
    data = prepare_step_time(times(["x"]), {"x": "ε=0", "absent": "none"})
    assert (data.labels, data.runs) == (("ε=0",), ((4.0, 5.0, 9.0),))
    np.testing.assert_allclose([data.median, data.p20, data.p80], [(5.0,), (4.5,), (6.5,)])
    assert describe_step_time(data) == (
        "Training step in ms, median (20th to 80th percentile). ε=0: 5 (4.5 to 6.5)."
    )


@pytest.mark.parametrize("arms", [0, 1, 31])
def test_any_number_of_step_times_draws(arms: int) -> None:
    names = [f"a{i:02}" for i in range(arms)]
    data = prepare_step_time(times(names), {name: name for name in names})
    figure = Figure(figsize=step_time_size(data))
    ax = draw_step_time(data, figure.subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == names[:30]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first arm at the top
    assert ax.get_xlim()[0] == 0
    assert data.left_out == tuple(names[30:])


def published(arms: list[str]) -> pd.DataFrame:
    """Accuracies of two epochs, the second one outside of the interval."""
    first, second = Interval(0.41, 0.3, 0.5, 2, 0.014), Interval(0.51, 0.49, 0.53, 2, 0.014)
    rows: list[tuple[Any, ...]]
    rows = [(arm, 0, "valid_accuracy", first, 0.39, True) for arm in arms]
    rows += [(arm, 1, "valid_accuracy", second, 0.48, False) for arm in arms]
    rows += [(arm, 2, "valid_accuracy", Interval(nan, nan, nan, 0, nan), 0.5, None) for arm in arms]
    return pd.DataFrame(rows, columns=["arm", "epoch", "name", "ours", "theirs", "inside"])


def test_every_run_and_the_band_stand_beside_the_published_points() -> None:
    data = prepare_published(epochs(["x"]), published(["x"]), {"x": "all"})
    accuracy, _, _, loss = data.panels
    np.testing.assert_allclose(accuracy.published, ((0, 39.0), (1, 48.0), (2, 50.0)))
    np.testing.assert_allclose(accuracy.runs[0], [((0, 40.0), (1, 50.0)), ((0, 42.0), (1, 52.0))])
    np.testing.assert_allclose(accuracy.bands[0], [(0, 30.0, 50.0), (1, 49.0, 53.0), (2, nan, nan)])
    np.testing.assert_allclose(accuracy.outside[0], [(1, 48.0)])
    assert (loss.published, loss.bands[0], loss.outside[0]) == ((), (), ())
    assert describe_published(data).startswith(
        "Our training runs beside the published one; at the last epoch, accuracy on the reported split (%): "
        "ours 50 to 52, published 50; "
    )
    assert describe_published(data).endswith("training loss (nats): ours 1 to 2, not published.")


@pytest.mark.parametrize("arms", [0, 1, 7])
def test_any_number_of_arms_stands_beside_the_published_run(arms: int) -> None:
    names = [f"a{i}" for i in range(arms)]
    data = prepare_published(epochs(names), published(names), {name: name for name in names})
    assert len(data.labels) == min(arms, 6)
    assert is_drawn(lambda figure: draw_published(data, figure))
    assert ("none of ours" in describe_published(data)) is (arms == 0)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=6))
def test_pooling_keeps_every_image_and_every_right_one(cells: list[tuple[int, int, float]]) -> None:
    """Whatever the bins hold, images and correct images are neither lost nor made."""
    rows = [
        ("x", seed, b, 0.0, 1.0, n, share, share if n else nan)
        for seed, (b, n, share) in enumerate(cells)
    ]  # fmt: skip
    names = ["arm", "seed", "bin", "lower", "upper", "count", "confidence", "accuracy"]
    (panel,) = prepare_reliability(pd.DataFrame(rows, columns=names), {"x": "x"}).panels
    assert sum(panel.count) == sum(n for _, n, _ in cells)
    right = sum(n * a for n, a in zip(panel.count, panel.accuracy, strict=True) if n)
    assert right == pytest.approx(sum(n * share for _, n, share in cells))

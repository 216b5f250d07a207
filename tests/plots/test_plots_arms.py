"""What figures that set arms beside each other show: effects, the front, step cost, confusion, features."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from ablate.figures import (
    StepCostRow,
    confusion_size,
    describe_confusion,
    describe_effects,
    describe_front,
    describe_metrics_by_level,
    describe_projection,
    describe_step_cost,
    draw_confusion,
    draw_effects,
    draw_front,
    draw_metrics_by_level,
    draw_projection,
    draw_step_cost,
    effects_size,
    figure_svg,
    front_size,
    goes_beyond,
    metrics_by_level_size,
    prepare_confusion,
    prepare_effects,
    prepare_front,
    prepare_metric_by_level,
    prepare_metrics_by_level,
    prepare_projection,
    prepare_step_cost,
    projection_size,
    step_cost_size,
)

nan = math.nan
HOSTILE = ("_hidden", "$x^2$ <b>&", "損失 {0}", "=1+1 %s")
MOST_BYTES = 150_000


def drawn(draw: Callable[[Figure], Any], size: tuple[float, float]) -> bytes:
    light, dark = figure_svg(draw, size=size)
    assert ElementTree.fromstring(dark).tag.endswith("svg")
    assert light == figure_svg(draw, size=size)[0]
    return light


def effects(arms: list[str], verdict: str = "undecided", reason: str = "") -> pd.DataFrame:
    rows = [
        (arm, metric, 0.01 * place, 0.01 * place - 0.02, 0.01 * place + 0.02, 0.01 * place - 0.03,
         0.01 * place + 0.03, {"accuracy": 0.005}.get(metric, nan), verdict, reason)
        for place, arm in enumerate(arms) for metric in ("accuracy", "nll")
    ]  # fmt: skip
    names = [
        "term",
        "metric",
        "effect",
        "low",
        "high",
        "low_images",
        "high_images",
        "margin",
        "verdict",
        "reason",
    ]
    return pd.DataFrame(rows, columns=names).assign(kind="arm")


METRICS = {"accuracy": ("Δ Accuracy (points)", 100.0), "nll": ("Δ NLL (nats)", 1.0)}


def test_effects_stand_in_the_panels_unit_with_their_verdicts() -> None:
    table = effects(["a", "b"])
    table.loc[table["term"] == "b", "verdict"] = "better"
    data = prepare_effects(table, {"a": "ε=0.1", "b": "ε=0.2", "c": "absent"}, METRICS, ("accuracy",))
    accuracy, nll = data.panels
    assert data.labels == ("ε=0.1", "ε=0.2")
    second = accuracy.rows[1]
    values = [second.effect, second.low, second.high, second.low_images, second.high_images, accuracy.margin]
    assert values == pytest.approx([1, -1, 3, -2, 4, 0.5])
    assert [row.word for row in accuracy.rows] == ["undecided", "better"]
    assert [row.word for row in nll.rows] == ["(undecided)", "(better)"]
    assert describe_effects(data).startswith(
        "Differences from the baseline with intervals. Δ Accuracy (points), margin 0.5: 1 undecided, "
        "1 better. ε=0.1: +0 (-2 to 2), undecided; ε=0.2: +1 (-1 to 3), better."
    )


@pytest.mark.parametrize(
    ("verdict", "marker"),
    [
        ("better", "^"),
        ("worse", "v"),
        ("equivalent", "s"),
        ("undecided", "o"),
        ("higher", ">"),
        ("lower", "<"),
    ],
)
def test_a_verdict_has_a_marker_and_a_word(verdict: str, marker: str) -> None:
    data = prepare_effects(effects(["a"], verdict), {"a": "A"}, METRICS, ("accuracy", "nll"))
    figure = Figure()
    draw_effects(data, figure)
    ax = figure.axes[0]
    assert [line.get_marker() for line in ax.lines if line.get_markersize() == 7][-1] == marker
    assert [text.get_text() for text in ax.texts] == [verdict]
    hollow = ax.lines[-1].get_markerfacecolor() == ax.get_facecolor()
    assert hollow is (verdict == "undecided")


@pytest.mark.parametrize(
    ("verdict", "reason", "word"),
    [
        ("equivalent", "identical", "identical"),
        ("undecided", "incomplete", "incomplete"),
        ("undecided", "no_spread", "undecided"),
    ],
)
def test_reasons_that_say_more_take_the_verdicts_place(verdict: str, reason: str, word: str) -> None:
    data = prepare_effects(effects(["a"], verdict, reason), {"a": "A"}, METRICS, ("accuracy",))
    assert data.panels[0].rows[0].word == word


def test_the_margin_is_a_band_where_there_is_one() -> None:
    figure = Figure()
    draw_effects(prepare_effects(effects(["a"]), {"a": "A"}, METRICS, ("accuracy",)), figure)
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.5, 1.0))  # type: ignore[attr-defined]
    assert not figure.axes[1].patches


def test_an_arm_without_pairs_keeps_its_row_but_has_no_marker() -> None:
    table = effects(["a", "b"], reason="incomplete")
    table.loc[table["term"] == "a", ["effect", "low", "high", "low_images", "high_images"]] = nan
    data = prepare_effects(table, {"a": "A", "b": "B"}, METRICS, ("accuracy",))
    assert "A: no pairs, incomplete" in describe_effects(data)
    assert drawn(lambda figure: draw_effects(data, figure), effects_size(data))


def test_intervals_that_dwarf_all_else_are_cut_with_an_arrowhead() -> None:
    table = effects(["a", "b"])
    table.loc[table["term"] == "a", ["low", "low_images"]] = -90.0
    data = prepare_effects(table, {"a": "A", "b": "B"}, METRICS, ("accuracy",))
    low, high = data.panels[0].limits
    assert -20 < low < -1
    assert 4 < high < 20
    figure = Figure()
    draw_effects(data, figure)
    heads = [line for line in figure.axes[0].lines if line.get_marker() == "<" and line.get_markersize() == 6]
    assert [np.asarray(line.get_ydata()).tolist() for line in heads] == [[0]]


def test_many_comparisons_are_thinned_named_and_small_enough() -> None:
    names = [f"arch=network_{i}, epsilon={i / 10}" for i in range(60)]
    table = effects(names)
    data = prepare_effects(table, dict(zip(names, names, strict=True)), METRICS, ("accuracy",), [names[7]])
    assert names[7] in data.labels
    assert len(data.labels) == 24
    assert describe_effects(data).endswith(", 32 more.")
    assert len(drawn(lambda figure: draw_effects(data, figure), effects_size(data))) < MOST_BYTES


def test_no_comparisons_are_said() -> None:
    data = prepare_effects(effects([]), {}, METRICS, ())
    assert describe_effects(data) == "Differences from the baseline: no comparisons."
    assert drawn(lambda figure: draw_effects(data, figure), effects_size(data))


def places(values: dict[str, tuple[float, float]]) -> pd.DataFrame:
    rows = [(arm, e, e - 0.01, e + 0.01, a, a - 0.02, a + 0.02) for arm, (e, a) in values.items()]
    names = ["arm", "error", "error_low", "error_high", "accuracy", "accuracy_low", "accuracy_high"]
    return pd.DataFrame(rows, columns=names)


def front(values: dict[str, tuple[float, float]], **more: Any) -> Any:
    labels = {arm: arm.upper() for arm in values}
    arguments = {"error_label": "ECE (%)", "accuracy_label": "Accuracy (%)", "step_ms": {}} | more
    return prepare_front(places(values), labels, factors=(100.0, 100.0), **arguments)


def test_the_front_holds_the_arms_that_none_beats() -> None:
    data = front(
        {"a": (0.01, 0.80), "b": (0.03, 0.85), "c": (0.03, 0.82), "d": (0.05, 0.85), "e": (nan, 0.99)}
    )
    assert [(point.label, point.on_front) for point in data.points] == [
        ("A", True), ("B", True), ("C", False), ("D", False),
    ]  # fmt: skip
    assert data.points[0].error == pytest.approx((1, 0, 2))
    assert data.points[0].accuracy == pytest.approx((80, 78, 82))
    assert describe_front(data) == (
        "Accuracy (%) against ECE (%). Beaten by no arm: A: 80 at 1; B: 85 at 3. "
        "Beaten in both: C (82 at 3), D (85 at 5)."
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_arm_is_on_the_front_or_beaten_by_one_that_is(values: list[tuple[int, int]]) -> None:
    data = front({f"arm{i}": (float(e), float(a)) for i, (e, a) in enumerate(values)})
    best = [(point.error[0], point.accuracy[0]) for point in data.points if point.on_front]
    for point in data.points:
        beaten = any(e <= point.error[0] and a >= point.accuracy[0] for e, a in best
                     if (e, a) != (point.error[0], point.accuracy[0]))  # fmt: skip
        assert point.on_front is not beaten


def test_arms_of_the_same_means_are_one_point() -> None:
    data = front({"a": (0.01, 0.8), "b": (0.01, 0.8), "c": (0.02, 0.9)})
    assert [point.label for point in data.points] == ["A (and 1 equal)", "C"]


def test_sizes_tell_the_cost_only_where_it_differs() -> None:
    values = {"a": (0.01, 0.80), "b": (0.03, 0.85)}
    assert not front(values, step_ms={"a": 4.0, "b": 4.1}).costs_differ
    assert not front(values).costs_differ
    data = front(values, step_ms={"a": 4.0, "b": 8.0})
    ax = draw_front(data, Figure().subplots())
    sizes = [line.get_markersize() for line in ax.lines if str(line.get_marker()) in "os"]
    assert sizes == [5.0, 12.0]
    assert "A: 80 at 1, step 4 ms" in describe_front(data)


@pytest.mark.parametrize("count", [0, 1, 9, 140])
def test_any_number_of_arms_makes_a_front(count: int) -> None:
    data = front({f"a{i}": (0.01 * (i % 13), 0.5 + 0.003 * i) for i in range(count)}, important=["a5"])
    assert sum(point.named for point in data.points) == min(count, 8)
    assert count < 6 or any(point.named and point.label == "A5" for point in data.points)
    assert len(data.points) + len(data.left_out) == count
    assert len(drawn(lambda figure: draw_front(data, figure.subplots()), front_size(data))) < MOST_BYTES


def test_step_costs_have_a_time_and_a_ratio_per_case() -> None:
    rows = [
        StepCostRow("reduction=mean", (2.0, 1.9, 2.1), (2.0, 1.9, 2.1), (1.0, 1.0, 1.0), plain=True),
        StepCostRow("reduction=none", (3.0, 2.8, 3.2), (2.0, 1.9, 2.1), (1.5, 1.4, 1.6), plain=False),
        StepCostRow("few", (3.0, nan, nan), (2.0, nan, nan), (1.5, nan, nan), plain=False),
    ]
    data = prepare_step_cost(rows)
    assert describe_step_cost(data) == (
        "Time of a training step in ms, and how many times as long as with plain cross-entropy. "
        "reduction=mean: 2 ms, which is plain cross-entropy; "
        "reduction=none: 3 ms, 1.500 times (1.400 to 1.600); few: 3 ms, 1.500 times."
    )
    figure = Figure()
    draw_step_cost(data, figure)
    times, ratios = figure.axes
    assert [text.get_text() for text in times.get_yticklabels()] == [row.label for row in rows]
    assert [text.get_text() for text in ratios.texts] == ["1.500 ×", "1.500 ×"]
    assert times.get_xlim()[0] == 0
    many = prepare_step_cost(rows[1:2] * 40)
    assert len(many.left_out) == 10
    assert len(drawn(lambda figure: draw_step_cost(many, figure), step_cost_size(many))) < MOST_BYTES
    none = prepare_step_cost([])
    assert describe_step_cost(none) == "Time of a training step: not measured."
    assert drawn(lambda figure: draw_step_cost(none, figure), step_cost_size(none))


def confusion(counts: dict[str, list[list[int]]], classes: tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (arm, true, taken, table[i][j])
        for arm, table in counts.items() for i, true in enumerate(classes) for j, taken in enumerate(classes)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "class", "predicted", "count"]).astype({"count": "Int64"})


def test_confusion_is_in_percent_of_each_class() -> None:
    table = confusion({"a": [[8, 2], [0, 5]], "b": [[9, 1], [1, 4]]}, ("cat", "dog"))
    data = prepare_confusion(table, {"a": "ε=0", "b": "ε=0.1"}, {"cat": "cat", "dog": "dog"})
    np.testing.assert_allclose(data.shares[0], [[80, 20], [0, 100]])
    assert data.difference is not None
    np.testing.assert_allclose(data.difference, [[10, -10], [20, -20]])
    assert describe_confusion(data) == (
        "Percent of each class's images by predicted class, most first. ε=0: cat as dog 20 %; "
        "ε=0.1: dog as cat 20 %, cat as dog 10 %; differences: dog as cat +20 points, dog right −20 points, "
        "cat right +10 points, cat as dog −10 points."
    )
    figure = Figure()
    draw_confusion(data, figure)
    shown = {(text.get_position(), text.get_text()) for text in figure.axes[2].texts}
    assert shown == {((0, 0), "+10"), ((1, 0), "−10"), ((0, 1), "+20"), ((1, 1), "−20")}
    colors = {patch.get_xy(): patch.get_facecolor()[:3] for patch in figure.axes[2].patches}  # type: ignore[attr-defined]
    better = {colors[-0.5, -0.5], colors[0.5, -0.5]}  # more cats right, fewer taken for dogs
    worse = {colors[-0.5, 0.5], colors[0.5, 0.5]}
    assert (len(better), len(worse), len(better | worse)) == (1, 1, 2)


def test_one_arm_or_none_makes_a_confusion() -> None:
    table = confusion({"a": [[8, 2], [0, 0]]}, ("cat", "dog"))  # no image is a dog
    data = prepare_confusion(table, {"a": "A", "absent": "B"}, {"cat": "cat", "dog": "dog"})
    assert data.difference is None
    np.testing.assert_allclose(data.shares[0], [[80, 20], [0, 0]])
    assert drawn(lambda figure: draw_confusion(data, figure), confusion_size(data))
    none = prepare_confusion(table, {}, {})
    assert describe_confusion(none) == "Confusion of classes: no complete trials."
    assert drawn(lambda figure: draw_confusion(none, figure), confusion_size(none))


def test_many_classes_and_names_of_any_kind_are_drawn_small_enough() -> None:
    classes = tuple(f"{HOSTILE[i % 4]} a rather long name {i}" for i in range(20))
    rng = np.random.default_rng(0)
    counts = {arm: (rng.integers(0, 30, (20, 20)) + 200 * np.eye(20, dtype=int)).tolist() for arm in "ab"}
    data = prepare_confusion(
        confusion(counts, classes), {"a": HOSTILE[0], "b": HOSTILE[1]}, {c: c for c in classes}
    )
    assert data.classes == classes
    assert len(drawn(lambda figure: draw_confusion(data, figure), confusion_size(data))) < MOST_BYTES


def features(arms: list[str], classes: tuple[str, ...], scale: float = 1.0) -> pd.DataFrame:
    """Each class is four points around a centre of its own, a distance of 10 from the next."""
    around = scale * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    rows = [
        (arm, split, name, 10 * place + x, y)
        for arm in arms for split in ("train", "valid")
        for place, name in enumerate(classes) for x, y in around
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "split", "class", "x", "y"])


def test_features_have_a_panel_per_arm_and_split() -> None:
    table = pd.concat([features(["a"], ("cat", "dog")), features(["b"], ("cat", "dog"), 0.5)])
    data = prepare_projection(table, {"a": "ε=0", "b": "ε=0.1"}, {"cat": "CAT", "dog": "DOG"})
    found = [(panel.arm, panel.split) for panel in data.panels]
    assert found == [("ε=0", "training images"), ("ε=0.1", "training images"), ("ε=0", "reported split"),
                     ("ε=0.1", "reported split")]  # fmt: skip
    assert [panel.spread for panel in data.panels] == pytest.approx([0.1, 0.05, 0.1, 0.05])
    assert set(data.panels[0].points[0]) == {(1, 0), (-1, 0), (0, 1), (0, -1)}
    left, right, lower, upper = data.panels[0].limits
    assert right - left == pytest.approx(upper - lower)
    assert (left < -1, right > 11) == (True, True)
    assert describe_projection(data).endswith(
        "ε=0, training images: 0.10; ε=0.1, training images: 0.05; ε=0, reported split: 0.10; "
        "ε=0.1, reported split: 0.05. Classes: CAT, DOG."
    )


def test_many_arms_classes_and_points_are_thinned() -> None:
    classes = tuple(f"{HOSTILE[i % 4]}{i}" for i in range(10))
    arms = [f"arm{i}" for i in range(9)]
    table = pd.concat([features(arms, classes, s) for s in np.linspace(0.1, 2, 50)])
    data = prepare_projection(table, {arm: arm for arm in arms}, {c: c for c in classes}, important=["arm3"])
    assert len(data.arms) == 4
    assert {"arm0", "arm3", "arm8"} <= set(data.arms)
    assert len(data.classes) == 6
    assert sorted([*data.classes, *data.classes_left_out]) == sorted(classes)
    assert len(drawn(lambda figure: draw_projection(data, figure), projection_size(data))) < MOST_BYTES
    figure = Figure()
    draw_projection(data, figure)
    labels = [text.get_text().strip() for text in figure.legends[0].get_texts()]
    assert labels == list(data.classes)
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 6  # told apart without colours


def test_one_class_one_point_or_nothing_makes_a_figure_of_features() -> None:
    one = features(["a"], ("cat",)).iloc[:1]
    data = prepare_projection(one, {"a": "A"}, {"cat": "cat"})
    assert math.isnan(data.panels[0].spread)
    assert drawn(lambda figure: draw_projection(data, figure), projection_size(data))
    none = prepare_projection(one[:0], {"a": "A"}, {})
    assert describe_projection(none) == "Penultimate features in two dimensions: none."
    assert drawn(lambda figure: draw_projection(none, figure), projection_size(none))


def by_level(label: str, value: float, lines: tuple[str, ...] = ("",), **more: Any) -> Any:
    rows = [(level, line, value, value - 0.01, value + 0.01) for line in lines for level in (0.0, 0.1)]
    means = pd.DataFrame(rows, columns=["level", "line", "mean", "low", "high"])
    runs = pd.DataFrame({"level": [], "line": [], "value": []})
    return prepare_metric_by_level(means, runs, factor="ε", label=label, **more)


def test_metrics_have_a_panel_each_and_those_without_values_none() -> None:
    empty = by_level("empty", nan)
    panels = [by_level(f"m{i}", float(i)) for i in range(10)]
    data = prepare_metrics_by_level([empty, *panels])
    assert [panel.label for panel in data.panels] == [f"m{i}" for i in range(8)]
    assert data.left_out == ("m8", "m9")
    assert "m3, mean by ε. 0: 3, 0.1: 3." in describe_metrics_by_level(data)
    assert (
        describe_metrics_by_level(prepare_metrics_by_level([empty]))
        == "Metrics by level: no complete trials."
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_any_number_of_metrics_draws(count: int) -> None:
    data = prepare_metrics_by_level([by_level(HOSTILE[i % 4], float(i), HOSTILE) for i in range(count)])
    assert (
        len(drawn(lambda figure: draw_metrics_by_level(data, figure), metrics_by_level_size(data)))
        < MOST_BYTES
    )


def test_panels_of_one_quantity_share_scale_and_a_lines_colour() -> None:
    order = ("mean", "sum")
    panels = [
        by_level("arch=a", 0.2, ("mean", "sum"), order=order),
        by_level("arch=b", 0.9, ("sum",), order=order),
    ]
    data = prepare_metrics_by_level(panels, axis="Accuracy")
    figure = Figure()
    draw_metrics_by_level(data, figure)
    first, second = figure.axes[:2]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < 0.19 < 0.91 < first.get_ylim()[1]
    assert [line.number for line in data.panels[1].lines] == [1]
    assert (first.get_ylabel(), second.get_ylabel()) == ("Accuracy", "")


def test_a_line_to_compare_with_stands_at_the_levels_that_are_drawn() -> None:
    data = by_level(
        "Confidence (%)", 0.8, unit_factor=100, reference=("best", {0.0: 1.0, 0.1: 0.91, 0.5: 0.55})
    )
    np.testing.assert_allclose(data.reference[1], [(0.0, 100.0), (0.1, 91.0)])
    assert describe_metrics_by_level(prepare_metrics_by_level([data])).endswith("Best: 0: 100, 0.1: 91.")


def test_intervals_that_leave_the_panel_are_noticed() -> None:
    assert not goes_beyond([by_level("m", 0.5)])
    wide = pd.DataFrame(
        {"level": [0.0, 0.1], "line": "", "mean": [0.5, 0.51], "low": [-9.0, 0.5], "high": [9.0, 0.52]}
    )
    runs = pd.DataFrame({"level": [], "line": [], "value": []})
    assert goes_beyond([prepare_metric_by_level(wide, runs, factor="ε", label="m")])

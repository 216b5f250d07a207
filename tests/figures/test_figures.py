"""Every figure, drawn once per kind of study: it shows what the tables hold and leaves nothing unsaid."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import figure_studies as studies
import numpy as np
import pandas as pd
import pytest
from figure_studies import KINDS, Drawn, dots, plan_of, searched, segments, tables_of, title, with_times
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from ablate.analysis.effects import effects_table
from ablate.figures import draw, draw_figures
from ablate.figures.context import Context, spread
from ablate.figures.effects import SAY_MORE
from ablate.figures.images import pooled, spread_of
from ablate.figures.levels import labels_apart, places_of
from ablate.figures.search import scores_of
from ablate.figures.theme import LIGHT
from ablate.stats.intervals import mean_interval, median_interval

nan = np.nan
BY_HAND = 1e-9
BY_LEVEL = ["accuracy", "ece", "mean_confidence"]
IMAGES = ["reliability", "confusion", "projection"]
MULTIPLES = ["calibration_by_level", "ranking_by_level"]
ARMS = ["effects", *BY_LEVEL, "front", *MULTIPLES, *IMAGES, "curves"]


Of = Callable[[str], Drawn]


@pytest.fixture(scope="module")
def of() -> Iterator[Of]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablate.study.trials.code_names", lambda fields: {})
        yield functools.cache(lambda kind: KINDS[kind]())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("one_factor", [*ARMS, "published"]),
        ("grid", [*ARMS[:5], "cost", *ARMS[5:-1], "step_time", ARMS[-1]]),
        ("two_factors", ["effects", "heat_map", *ARMS[1:]]),
        ("alone", [*BY_LEVEL, *IMAGES, "curves", "published"]),
        ("tuned_one", ["tuning_history", "tuning_slices", *ARMS]),
        ("tuned", ["tuning_history", "tuning_slices", "tuning_history_2", "tuning_slices_2",
                   "tuning_importances", "tuning_front", *ARMS]),
    ],
)  # fmt: skip
def test_a_study_has_the_figures_that_its_tables_allow(of: Of, kind: str, names: list[str]) -> None:
    assert [name for name in of(kind).figures if name != "answer"] == names
    for figure in of(kind).figures.values():
        assert not figure.error
        assert figure.alt.startswith(f"{figure.title}. {figure.caption[:60].splitlines()[0]}")
        assert re.search(r"The numbers are in \w+\.csv\.$", figure.alt)


def test_every_arm_is_drawn_or_named_as_left_out(of: Of) -> None:
    study = of("many")
    assert {(figure.error, len(figure.light) < 180_000) for figure in study.figures.values()} == {("", True)}
    first = {name: study.axes(name)[0] for name in study.figures}
    shown = {
        "effects": len(first["effects"].get_yticks()) + 1,  # the baseline has no row
        "accuracy": len(first["accuracy"].get_xticks()),
        "reliability": len(study.axes("reliability")),
        "projection": len({title(ax) for ax in study.axes("projection")} - {""}),
        "curves": len({line.get_color() for line in first["curves"].lines}),
        "front": len({place[:2] for place in dots(first["front"])}),
        "published": len({of.get_color() for of in first["published"].lines if of.get_marker() == "None"}),
    }
    for name, drawn in shown.items():
        assert drawn + len(study.drawing(name).left_out) == len(studies.MANY), name
    assert (shown["effects"], shown["reliability"], shown["curves"]) == (25, 12, 12)
    left_out = study.drawing("reliability").left_out
    said = f" Left out for want of room: {', '.join(left_out[:4])} and {len(left_out) - 4} more."
    assert study.figures["reliability"].caption.endswith(said)
    important = {study.context.labels[arm] for arm in study.context.important}
    assert important <= {title(ax) for ax in study.axes("reliability")} & {*study.legend("curves")}


def means_by_hand(study: Drawn, metric: str) -> dict[str, tuple[float, float, float]]:
    values = 100 * study.tables["trials"].set_index("arm")[metric].astype(float)
    arms = values.groupby(level=0)
    found = {str(arm): mean_interval(of.to_numpy(), bounds=(0.0, 100.0)) for arm, of in arms}
    return {arm: (own.mean, own.low, own.high) for arm, own in found.items()}


@pytest.mark.parametrize("kind", ["one_factor", "grid", "hostile", "tuned"])
@pytest.mark.parametrize("metric", ["accuracy", "ece"])
def test_means_and_intervals_by_level_are_those_of_the_trials(of: Of, kind: str, metric: str) -> None:
    study, expected = of(kind), means_by_hand(of(kind), metric)
    axes = study.axes(metric)
    drawn = sorted(tuple(ends[:, 1]) for ax in axes for ends in segments(ax))
    np.testing.assert_allclose(drawn, sorted(ends[1:] for ends in expected.values()))
    heights = sorted(y for ax in axes for _, y, _ in dots(ax))
    runs, means = 100 * study.tables["trials"][metric].astype(float), [ends[0] for ends in expected.values()]
    np.testing.assert_allclose(heights, sorted([*runs, *means]))
    low, high = axes[0].get_ylim()
    assert low < heights[0] < heights[-1] < high


@pytest.mark.parametrize("kind", ["one_factor", "grid", "many", "tuned"])
def test_an_arm_has_one_colour_through_the_whole_page(of: Of, kind: str) -> None:
    study = of(kind)
    colors = {study.context.labels[arm]: color for arm, color in study.context.colors.items()}
    ax = study.axes("effects")[0]
    for row, text in enumerate(ax.get_yticklabels()):
        marks = [line for line in ax.lines if list(line.get_ydata()) == [row]]
        assert {line.get_color() for line in marks} == {colors[text.get_text()]}
    for ax in (ax for ax in study.axes("reliability") if title(ax) in colors):
        assert to_hex(ax.patches[0].get_facecolor()) == colors[title(ax)]
    for name in ("accuracy", "ece", "front"):
        drawn = {color for ax in study.axes(name) for _, _, color in dots(ax)}
        assert drawn <= {*colors.values(), LIGHT.muted}
        assert len(drawn) > 1
    curves = {line.get_color() for ax in study.axes("curves") for line in ax.lines}
    assert curves <= set(colors.values())
    if kind != "grid":
        assert len(set(colors.values())) == len(colors)


def test_in_a_grid_the_colour_is_that_of_the_line(of: Of) -> None:
    study = of("grid")
    pairs = {(study.context.line_of[arm], color) for arm, color in study.context.colors.items()}
    assert len(pairs) == len(studies.REDUCTIONS)
    assert title(study.axes("curves")[0]) == "loss (nats, as trained)\nε=0, arch=seed_cnn"
    assert study.legend("curves")[:3] == [f"reduction={name}" for name in studies.REDUCTIONS]
    dashes = {line.get_linestyle() for line in study.axes("calibration_by_level")[0].lines[:6]}
    assert len(dashes) == 2  # the two networks share a line's colour


@pytest.mark.parametrize(
    ("levels", "places"),
    [
        ((1, 2, 4, 8), (0, 1 / 3, 2 / 3, 1)), ((1.0, 0.001, 0.01, 0.1), (1, 0, 1 / 3, 2 / 3)),
        ((32, 64, 128), (0, 0.5, 1)), ((0.1, 10), (0, 1)), ((0.0, 0.01, 0.1, 1.0), (0, 1 / 3, 2 / 3, 1)),
        ((0, 0.05, 0.1, 0.2, 0.4), (0, 0.25, 0.5, 0.75, 1)), ((0, 0.001, 0.1), (0, 0.5, 1)),
        ((0.0, 0.1, 0.2, 0.3), (0, 1 / 3, 2 / 3, 1)), ((-1, 1, 10, 100), (0, 2 / 101, 11 / 101, 1)),
        ((0, 0.1), (0, 1)), ((0.05, 0.1, 0.16), (0, 5 / 11, 1)), ((0.5,), (0,)), (("b", "a"), (0, 1)),
    ],
)  # fmt: skip
def test_levels_lie_on_the_scale_that_fits(levels: tuple[Any, ...], places: tuple[float, ...]) -> None:
    assert places_of(levels) == pytest.approx(dict(zip(levels, places, strict=True)))


@pytest.mark.parametrize("kind", ["one_factor", "grid", "hostile", "tuned"])
def test_differences_are_those_of_the_effects_table(of: Of, kind: str) -> None:
    study = of(kind)
    table = effects_table(study.tables, study.plan)
    metrics = (("accuracy", 100), ("ece", 100), ("nll", 1))
    for ax, (metric, factor) in zip(study.axes("effects"), metrics, strict=True):
        rows = table[(table["metric"] == metric) & (table["kind"] == "arm")].set_index("term")
        rows = rows.loc[[arm for arm, _ in study.plan.comparisons]]
        marks = [line for line in ax.lines if line.get_markersize() == 7 and line.get_marker() != "|"]
        effects = [line.get_xdata()[0] for line in marks]
        np.testing.assert_allclose(effects, factor * rows["effect"].astype(float), atol=BY_HAND)
        ends = factor * rows[["low", "high"]].to_numpy(dtype=float)
        ends = ends[np.isfinite(ends).all(axis=1)]
        drawn = segments(ax)[-len(ends) :, :, 0]
        np.testing.assert_allclose(drawn, np.clip(ends, *ax.get_xlim()), atol=BY_HAND)
        claims = rows[rows["verdict"] != "exploratory"]
        verdicts = claims["verdict"].where(~claims["reason"].isin(SAY_MORE), claims["reason"])
        assert [text.get_text() for text in ax.texts] == list(verdicts)
        assert bool(len(claims)) is (metric == study.plan.study.primary)
    caption = study.caption("effects")
    assert ("Words are verdicts" in caption, caption.count("exploratory")) == (True, 1)


@pytest.mark.parametrize(
    ("verdict", "reason", "marker", "word"),
    [("better", "", "^", "better"), ("worse", "", "v", "worse"), ("higher", "", ">", "higher"),
     ("lower", "", "<", "lower"), ("equivalent", "identical", "s", "identical"),
     ("undecided", "no_spread", "o", "undecided"), ("exploratory", "", ".", ""),
     ("exploratory", "identical", ".", "")],
)  # fmt: skip
def test_a_verdict_has_a_marker_and_a_word(of: Of, verdict: str, reason: str, marker: str, word: str) -> None:
    study = of("one_factor")
    table = effects_table(study.tables, study.plan).assign(verdict=verdict, reason=reason, margin=0.005)
    table.loc[table["term"] == "epsilon=0.8", ["low", "low_images"]] = -90.0
    ax = study.but(effects=table).axes("effects")[0]
    line = [line for line in ax.lines if line.get_markersize() == 7][-1]
    assert line.get_marker() == marker
    assert (line.get_markerfacecolor() == LIGHT.surface) is (verdict == "undecided")
    assert [text.get_text() for text in ax.texts] == [word] * 3 * bool(word)
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.5, 1.0))
    heads = [line for line in ax.lines if line.get_marker() in "<>" and line.get_markersize() == 6]
    assert [(head.get_marker(), list(head.get_ydata())) for head in heads] == [("<", [2])]


def test_bars_are_the_pooled_accuracy_and_of_few_images_look_like_few(of: Of) -> None:
    for ax in of("one_factor").axes("reliability"):
        bars = [patch for patch in ax.patches if to_hex(patch.get_facecolor()) != LIGHT.muted]
        many, thin = ((round(bar.get_path().vertices[:, 1].max(), 6), bar.get_alpha()) for bar in bars)
        assert (many[0], thin[0]) == (70.0, 10.0)  # pooled over three runs: 15, 60 and 300 images
        assert thin[1] < 0.6 * many[1]
    rows = [("x", seed, b, b / 3, (b + 1) / 3, n * (seed + 1), nan if n == 0 else (0.5, 0.5, 0.9)[b],
             nan if n == 0 else (0.5, 0.4, 0.8)[b] + 0.1 * seed)
            for seed in (0, 1) for b, n in enumerate((0, 10, 30))]  # fmt: skip
    names = ["arm", "seed", "bin", "lower", "upper", "count", "confidence", "accuracy"]
    found = pooled(pd.DataFrame(rows, columns=names).astype({"count": "Int64"}))
    accuracy = [100 * (10 * 0.4 + 20 * 0.5) / 30, 100 * (30 * 0.8 + 60 * 0.9) / 90]
    expected = [[0, nan, nan], [30, 50, accuracy[0]], [90, 90, accuracy[1]]]
    np.testing.assert_allclose(found[["count", "confidence", "accuracy"]], expected)


def test_confusion_is_in_percent_and_its_difference_in_points(of: Of) -> None:
    study = of("one_factor")
    cells = itertools.product(study.context.contrasted, ("cat", "dog"), ("cat", "dog"))
    table = pd.DataFrame(cells, columns=["arm", "class", "predicted"]).assign(count=[8, 2, 0, 5, 9, 1, 1, 4])
    axes = study.but(confusion=table).axes("confusion")
    shown = [{(text.get_position(), text.get_text()) for text in ax.texts} for ax in axes]
    assert shown[0] == {((0.5, 0.5), "80"), ((1.5, 0.5), "20"), ((1.5, 1.5), "100")}
    assert shown[2] == {((0.5, 0.5), "+10"), ((1.5, 0.5), "−10"), ((0.5, 1.5), "+20"), ((1.5, 1.5), "−20")}
    right, less_wrong, more_wrong, less_right = (to_hex(c) for c in axes[2].collections[0].get_facecolors())
    assert (right, more_wrong) == (less_wrong, less_right)  # better, worse
    assert right != more_wrong
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["cat", "dog"]
    assert "the second arm errs" in study.caption("confusion")
    assert "one arm" in of("alone").caption("confusion")


@pytest.mark.slow
def test_many_classes_are_numbered_and_their_small_cells_left_blank(of: Of) -> None:
    study = of("one_factor")
    classes = [f"{studies.HOSTILE[number % 4]} a rather long name {number}" for number in range(20)]
    cells = pd.DataFrame(itertools.product(study.plan.arms, classes, classes))
    cells = cells.set_axis(["arm", "class", "predicted"], axis=1)
    many = study.but(confusion=cells.assign(count=np.where(cells["class"] == cells["predicted"], 400, 1)))
    ax = many.axes("confusion")[0]
    assert 0 < len(ax.texts) <= 110
    assert ax.get_xticklabels()[19].get_text() == "20"
    assert ax.get_yticklabels()[19].get_text().startswith("20 =1+1")


def test_features_are_drawn_with_how_far_their_classes_lie_apart(of: Of) -> None:
    study = of("one_factor")
    axes = study.axes("projection")
    around = ((1, 0), (-1, 0), (0, 1), (0, -1))
    assert {place[:2] for place in dots(axes[0])} == {(x + at, y) for at in (0, 10) for x, y in around}
    left, right = axes[0].get_xlim()
    assert right - left == pytest.approx(np.ptp(axes[0].get_ylim()))
    assert "ε=0, training images: 0.10" in study.drawing("projection").facts
    assert spread_of(studies.features(study.plan, ("cat", "dog", "cow"))[:12]) == pytest.approx(3 / 40)
    assert np.isnan(spread_of(studies.features(study.plan, ("cat",))[:4]))
    classes = tuple(f"{studies.HOSTILE[number % 4]}{number}" for number in range(10))
    table = studies.features(study.plan, classes, copies=100)
    many = study.but(projection=table)
    assert sum(len(dots(ax)) for ax in many.axes("projection")) <= 1000
    assert len(many.legend("projection")) == 6
    assert "Classes left out" in many.caption("projection")


def test_curves_are_means_with_the_range_of_runs(of: Of) -> None:
    loss, accuracy = of("one_factor").axes("curves")
    heights = [{tuple(np.round(line.get_ydata(), 9)) for line in ax.lines} for ax in (loss, accuracy)]
    assert heights == [{(4.0, 3.0, 2.0), (2.0, 1.9, 1.8)}, {(40.0, 50.0, 60.0), (50.0,) * 3}]
    far = of("one_factor").tables["epochs"].copy()
    far.loc[far["epoch"] == 0, "valid_loss"], far["epoch"] = 1e3, 4 * far["epoch"]
    assert of("one_factor").but(epochs=far).axes("curves")[0].get_ylim()[1] < 10
    ends = loss.collections[0].get_paths()[0].vertices
    assert {tuple(np.round(end, 9)) for end in ends} >= {(0.0, 3.0), (0.0, 5.0), (2.0, 1.0), (2.0, 3.0)}


def test_only_complete_runs_are_drawn_and_long_ones_thinned(of: Of) -> None:
    study = of("one_factor")
    trials, epochs = study.tables["trials"], study.tables["epochs"]
    lost = trials["trial_id"] == study.plan.trials[0].trial_id
    trials = trials.assign(status=trials["status"].mask(lost, "oom"))
    epochs = pd.concat([epochs.assign(epoch=epochs["epoch"] + 3 * n) for n in range(40)])
    x, y = study.but(trials=trials, epochs=epochs).axes("curves")[0].lines[0].get_data()
    assert (len(x), x[0], x[-1]) == (40, 0, 119)
    assert y[0] == pytest.approx(4.5)  # seeds 1 and 2 alone
    assert study.but(trials=trials.assign(status="oom")).figures == {}


def test_every_run_and_the_band_stand_beside_the_published_points(of: Of) -> None:
    study = of("alone")
    accuracy, _, loss, _ = study.axes("published")
    theirs = next(line for line in accuracy.lines if line.get_marker() == "D")
    np.testing.assert_allclose(theirs.get_ydata(), [40, 45, 50, 55])
    ours = [line for line in accuracy.lines if line.get_marker() == "None" and len(line.get_ydata())]
    assert [list(line.get_ydata()) for line in ours] == [pytest.approx([40, 50, 60])] * 3
    assert all(line.get_marker() != "D" for line in loss.lines)
    assert "published values" in study.drawing("published").facts
    assert study.drawing("published").facts in study.figures["published"].alt


def test_the_noise_floor_is_a_line_in_its_band(of: Of) -> None:
    said, floor = "95 % of means of a perfectly calibrated network would fall", "noise floor"
    for kind in ("one_factor", "hostile", "alone"):
        dashed = [line for line in of(kind).axes("ece")[0].lines if line.is_dashed()]
        assert {round(float(y), 9) for line in dashed for y in line.get_ydata()} == {1.0}
        assert (said in of(kind).caption("ece"), floor in of(kind).caption("ece")) == (True, True)
    trials, none = of("one_factor").tables["trials"], of("one_factor").tables["floors"][:0]
    older = of("one_factor").but(floors=none).caption("ece")
    assert (said in older, floor in older) == (False, True)
    zero = of("one_factor").but(trials=trials.assign(ece=0.0, ece_floor=nan), floors=none)
    assert zero.axes("ece")[0].get_ylim() == (-0.05, 1.05)


def test_the_smoothed_loss_is_least_at_the_dotted_line(of: Of) -> None:
    """By hand: the smoothed cross-entropy of a softmax with one logit raised, over a grid of confidences."""
    study = of("one_factor")
    (line,) = [line for line in study.axes("mean_confidence")[0].lines if line.get_linewidth() == 1.8]
    grid = np.linspace(0.2, 0.9999, 20_000)
    for epsilon, height in zip(studies.EPSILONS, line.get_ydata(), strict=True):
        right, wrong = 1 - epsilon + epsilon / 2, epsilon / 2
        loss = -right * np.log(grid) - wrong * np.log(1 - grid)
        assert grid[loss.argmin()] == pytest.approx(height / 100, abs=2e-4)
    assert "dotted line" in study.caption("mean_confidence")
    assert "dotted line" not in of("hostile").caption("mean_confidence")


def test_one_arm_is_drawn_run_by_run(of: Of) -> None:
    study = of("alone")
    (ax,) = study.axes("accuracy")
    assert [y for _, y, _ in dots(ax)] == pytest.approx([90, 91, 94])
    mean, low, high = means_by_hand(study, "accuracy")[study.plan.arms[0]]
    assert [line.get_ydata()[0] for line in ax.lines] == [pytest.approx(mean)]
    (band,) = ax.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))


def test_steps_are_timed_beside_cross_entropy_in_one_row_per_work(of: Of) -> None:
    study = of("grid")
    times, ratios = study.axes("step_time")
    works = itertools.product(studies.REDUCTIONS, studies.ARCHS)
    expected = [f"reduction={reduction}, arch={arch}" for reduction, arch in works]
    assert [text.get_text() for text in times.get_yticklabels()] == expected
    first = median_interval(np.array([1 + 0.01 * r for r in range(8)]))
    assert dots(times)[0][0] == pytest.approx(first.median)
    assert list(segments(times)[0, :, 0]) == pytest.approx([first.low, first.high])
    assert [text.get_text() for text in ratios.texts] == [f"{x}.000 ×" for x in (1, 1, 2, 2, 1, 1)]
    busy = Drawn(with_times(study.tables, study.plan, others=0.4), study.plan)
    assert "Other processes used 40% of the machine's cores" in busy.caption("step_time")


def test_the_front_has_the_arms_means_and_those_that_are_equal_once(of: Of) -> None:
    study = of("one_factor")
    expected = [means_by_hand(study, metric) for metric in ("ece", "accuracy")]
    drawn = {place[:2] for place in dots(study.axes("front")[0])}
    assert drawn == {tuple(round(own[arm][0], 6) for own in expected) for arm in study.plan.arms}
    (line,) = [line for line in study.axes("front")[0].lines if line.get_drawstyle() == "steps-post"]
    unbeaten = {(x, y) for x, y in drawn if not any(a <= x and b >= y for a, b in drawn - {(x, y)})}
    assert {(round(x, 6), round(y, 6)) for x, y in line.get_xydata()} == unbeaten
    plan = plan_of({"epsilon": studies.EPSILONS}, {"epsilon": 0.0})
    same = Drawn(tables_of(plan, **dict.fromkeys(plan.arms, 0.5)), plan)
    assert same.legend("front") == ["ε=0 (and 3 equal)"]


def test_the_cost_of_an_arm_is_its_timed_step(of: Of) -> None:
    study = of("grid")
    (ax,) = study.axes("cost")
    expected = []
    for name, (mean, _, _) in means_by_hand(study, "accuracy").items():
        levels = study.context.arms[name].levels
        times = (2 if levels["reduction"] == "sum" else 1) * (10 if levels["arch"] == "xresnet18" else 1)
        expected.append((1.035 * times, mean))
    np.testing.assert_allclose(sorted(place[:2] for place in dots(ax)), sorted(expected), rtol=1e-6)
    assert study.drawing("cost").table == "timing"
    assert "cost" not in of("one_factor").figures  # all its arms do the same work


def test_two_numeric_factors_are_a_grid_of_means_with_baselines_and_the_best_framed(of: Of) -> None:
    study = of("two_factors")
    for ax, metric, best in zip(study.axes("heat_map"), ("accuracy", "ece"), (max, min), strict=True):
        means = {arm: round(own[0], 2) for arm, own in means_by_hand(study, metric).items()}
        across = [text.get_text() for text in ax.get_xticklabels()]
        up = [text.get_text() for text in ax.get_yticklabels()]
        assert (across, up) == (["0", "0.01", "0.1", "0.8"], ["0.3", "0"])
        cells = {}
        for text in ax.texts:
            x, y = (int(place) for place in text.get_position())
            cells[f"label_noise={float(up[y])}, epsilon={float(across[x])}"] = float(text.get_text())
        assert cells == pytest.approx(means, abs=0.011)
        frames = [(frame.get_x(), frame.get_y(), frame.get_linestyle()) for frame in ax.patches]
        assert [place[:2] for place in frames if place[2] == ":"] == [(0, 1), (0, 0)]
        (x, y) = next((int(x), int(y)) for x, y, dash in frames if dash == "-")
        assert cells[f"label_noise={float(up[y])}, epsilon={float(across[x])}"] == best(cells.values())
    mesh = study.axes("heat_map")[1].collections[0]
    shown, light = [float(text.get_text()) for text in study.axes("heat_map")[1].texts], mesh.get_facecolors()
    assert light[np.argmin(shown)].sum() < light[np.argmax(shown)].sum()  # small errors are deep


def test_the_baseline_and_its_margin_lie_behind_the_levels(of: Of) -> None:
    study = of("one_factor")
    (ax,) = study.axes("accuracy")
    mean = means_by_hand(study, "accuracy")["epsilon=0.0"][0]
    (line,) = [line for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    assert list(line.get_ydata()) == [pytest.approx(mean)] * 2
    (band,) = ax.patches
    margin = 100 * study.plan.study.all_margins["accuracy"]
    assert (band.get_y(), band.get_height()) == pytest.approx((mean - margin, 2 * margin))
    assert {"baseline", "its margin"} <= {*study.legend("accuracy")}
    assert "baseline" not in of("grid").legend("accuracy")  # each line has another one
    assert "baseline" not in of("alone").legend("accuracy")


def test_an_axis_says_that_it_is_logarithmic_and_a_trend_asks_about_every_level() -> None:
    for levels, scale in (((0.1, 0.2, 0.3), ""), ((0.001, 0.01, 0.1), " (log scale)")):
        drawn = studies.study({"lr": levels}, {"lr": levels[0]}, comparisons=("trend",))
        assert [ax.get_xlabel() for ax in (*drawn.axes("answer"), *drawn.axes("accuracy"))] == [
            f"lr{scale}"
        ] * 2
        assert "; trend: " in drawn.axes("answer")[0].get_title(loc="left")
        assert drawn.legend("answer") == []


def test_a_search_is_drawn_in_its_order_with_the_best_so_far_and_what_was_lost(of: Of) -> None:
    study = of("tuned")
    (ax,) = study.axes("tuning_history")
    assert [place[:2] for place in dots(ax)] == [(1, 88), (0, 90), (2, 93)]
    assert [list(ends[:, 1]) for ends in segments(ax)] == [pytest.approx([89, 91]), pytest.approx([92, 94])]
    (best,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(best.get_xydata(), [*enumerate([90.5, 90.5, *[92] * 4]), (5.5, 92)])
    (pruned,) = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(pruned.get_xydata(), [(3, 89)])
    (lost,) = [line for line in ax.lines if line.get_marker() == "|"]
    assert list(lost.get_xdata()) == [4]  # failed; the running one may still get a value
    (falling,) = [line for line in study.axes("tuning_history_2")[0].lines if len(line.get_xdata()) > 6]
    np.testing.assert_allclose(falling.get_ydata(), [20, *[10] * 6])
    colors = {round(y): color for _, y, color in dots(ax)}
    baseline, winner = (study.context.colors[arm] for arm in study.plan.arms)
    assert (colors[90], colors[93], colors[88]) == (baseline, winner, LIGHT.ink)


def test_slices_have_every_field_on_its_own_scale(of: Of) -> None:
    epsilon, lr, arch = of("tuned").axes("tuning_slices")
    assert [ax.get_xscale() for ax in (epsilon, lr, arch)] == ["linear", "log", "linear"]
    assert {place[:2] for place in dots(epsilon)} >= {(0.0, 90.0), (0.1, 88.0), (0.2, 93.0)}
    places = {round(y): x for x, y, _ in dots(arch) if round(y) in (90, 88, 93)}
    assert places == {90: -0.15, 93: 0.15, 88: 1.0}  # side by side in the order of the search
    assert [text.get_text() for text in arch.get_xticklabels()] == list(studies.ARCHS)
    dashes = next(line for line in epsilon.lines if line.get_marker() == "_")
    np.testing.assert_allclose(dashes.get_xydata(), [(0.0, 90.5), (0.1, 89), (0.2, 92)], atol=BY_HAND)
    (alone,) = of("tuned_one").axes("tuning_slices")
    np.testing.assert_allclose(alone.lines[0].get_ydata(), [90.5, 89, 92])
    band = alone.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(92 + 3.92)


def test_importances_are_ordered_by_the_first_objective(of: Of) -> None:
    (ax,) = of("tuned").axes("tuning_importances")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["lr", "ε", "arch"]
    assert [round(bar.get_width(), 6) for bar in ax.containers[0]] == [0.7, 0.2, 0.1]
    many = of("tuned").but(tuning=of("tuned").tables["tuning"].assign(points_done=120))
    for study, best, noisy in ((of("tuned"), "best 5 of 3", True), (many, "best 10 % of 120", False)):
        caption = study.caption("tuning_importances")
        assert (best in caption, "much in them is noise" in caption) == (True, noisy)


def test_the_front_of_a_search_goes_through_the_smoothed_values(of: Of) -> None:
    study = of("tuned")
    (ax,) = study.axes("tuning_front")
    (line,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(line.get_xydata(), [(10, 89), (30, 92)])
    assert "winner: ε=0.2, lr=0.01, arch=seed_cnn" in study.legend("tuning_front")
    assert sorted(tuple(np.round(ends.ravel(), 6)) for ends in segments(ax)) == [
        (19.0, 90.0, 21.0, 90.0), (20.0, 89.0, 20.0, 91.0),
        (29.0, 93.0, 31.0, 93.0), (30.0, 92.0, 30.0, 94.0),
    ]  # fmt: skip


def test_single_runs_stand_in_place_of_a_long_interval_of_few_seeds() -> None:
    """Means span 5 points: the first interval is longer than three times that, the third is not."""
    long: dict[str, Any] = {"low": [0.50, nan, 0.89, nan, nan, nan], "high": [1.30, nan, 0.97, nan, nan, nan]}
    study = Drawn(*searched(**long))
    (ax,) = study.axes("tuning_history")
    assert [list(ends[:, 1]) for ends in segments(ax)] == [pytest.approx([89, 97])]
    assert {place[:2] for place in dots(ax)} >= {(0, 89.0), (0, 91.0)}
    for name in ("tuning_history", "tuning_slices", "tuning_front"):
        assert "single runs are shown in its place" in study.caption(name)
    values = study.tables["point_values"]
    more = pd.concat([values, *(values.assign(seed=seed, trial_id=f"x{seed}") for seed in range(2))])
    many = study.but(point_values=more).context
    assert not scores_of(many)[0].points["long"].any()  # of many seeds an interval stays however long


@pytest.mark.parametrize(("objective", "bad", "good"), [("accuracy", 0.1, 7.0), ("ece", 7.0, 0.1)])
def test_much_worse_points_do_not_squeeze_the_others(of: Of, objective: str, bad: float, good: float) -> None:
    scores = next(own for own in scores_of(of("tuned").context) if own.metric.name == objective)
    rows = pd.DataFrame({"number": range(11), "mean": [*(0.95 + 0.001 * np.arange(10)), bad]})
    rows = rows.assign(low=nan, high=nan, long=False)
    low, high = scores.limits(rows, [])
    assert 0.9 < low < high < 1.0
    low, high = scores.limits(rows.replace(bad, good), [])  # a much better one is in sight
    assert low < good < high
    assert scores.limits(rows[:0], [])[1] > 0


@pytest.mark.parametrize(
    ("factors", "baseline", "axis", "panel", "lines"),
    [
        ("", {}, "", "", []),
        ("epsilon", {}, "epsilon", "", []),
        ("arch reduction", {}, "arch", "", ["reduction"]),
        ("label_noise epsilon", {}, "label_noise", "", ["epsilon"]),
        ("label_noise epsilon", {"epsilon": 0.0}, "epsilon", "", ["label_noise"]),
        ("epsilon reduction arch", {}, "epsilon", "arch", ["reduction"]),
    ],
)
def test_factors_stand_on_the_axis_in_panels_and_as_lines(
    factors: str, baseline: dict[str, Any], axis: str, panel: str, lines: list[str]
) -> None:
    levels = {"label_noise": studies.EPSILONS, "epsilon": (0.0, 0.1), "arch": studies.ARCHS}
    levels |= {"reduction": studies.REDUCTIONS}
    context = Context({}, plan_of({name: levels[name] for name in factors.split()}, baseline))
    assert (context.axis, context.panel, context.line) == (axis, panel, lines)


def test_the_best_arm_and_its_baseline_are_never_left_out() -> None:
    plan = plan_of({"arch": studies.ARCHS, "epsilon": (0.0, 0.1, 0.3)}, {"epsilon": 0.0})
    best = {"arch=xresnet18, epsilon=0.3": 0.95, "arch=seed_cnn, epsilon=0.0": 0.99}
    tables = tables_of(plan, **best)
    context = Context(tables, plan)
    assert context.important == ("arch=seed_cnn, epsilon=0.0",)  # the best is a baseline itself
    assert context.contrasted == ("arch=xresnet18, epsilon=0.0", "arch=xresnet18, epsilon=0.3")
    rest = tables["trials"][tables["trials"]["arm"] != "arch=xresnet18, epsilon=0.0"]
    assert Context({**tables, "trials": rest}, plan).contrasted[1] == "arch=seed_cnn, epsilon=0.1"
    without = plan_of({"arch": studies.ARCHS})
    assert Context(tables_of(without), without).contrasted == ("arch=seed_cnn",)


@pytest.mark.slow
def test_missing_values_cost_no_figure(of: Of) -> None:
    study = of("one_factor")
    trials = study.tables["trials"]
    absent = trials.assign(**dict.fromkeys(("ece", "ece_floor", "nll", "step_ms", "auroc_error"), nan))
    for rows in (absent, trials[trials["seed"] == 0]):
        assert {figure.error for figure in study.but(trials=rows).figures.values()} == {""}


def test_a_broken_library_costs_the_figures_and_says_why(of: Of, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ImportError("no <room> left")

    monkeypatch.setattr("importlib.import_module", broken)
    (figure,) = draw_figures(of("alone").tables, of("alone").plan)
    assert figure.error == "ImportError: no <room> left"


@given(size=st.integers(0, 30), limit=st.integers(1, 12), always=st.sets(st.integers(0, 29), max_size=5))
def test_spread_keeps_order_both_ends_and_what_matters(size: int, limit: int, always: set[int]) -> None:
    kept, left_out = spread(range(size), limit, always)
    assert len(kept) == min(size, limit)
    assert sorted([*kept, *left_out]) == list(range(size))
    assert kept == sorted(kept)
    wanted = [item for item in range(size) if item in always]
    assert set(wanted[:limit]) <= set(kept)
    if not wanted and limit > 1 and size:
        assert {0, size - 1} <= set(kept)


def test_words_that_fit() -> None:
    assert draw.shorten("epsilon=0.1") == "epsilon=0.1"
    assert draw.shorten("_hidden") == " _hidden"  # matplotlib's legends pass over the other
    short = draw.shorten("arch=package.module.with.a.long.name:factory, epsilon=0.1")
    assert (len(short) <= 40, short[:12], short[-11:]) == (True, "arch=package", "epsilon=0.1")
    assert labels_apart(["0.1"] * 5, np.array([0, 0.2, 0.4, 0.7, 1])) == ["0.1", "", "0.1", "", "0.1"]


def test_an_interval_is_cut_only_where_it_dwarfs_the_values() -> None:
    low, high = draw.view_limits([0.0, 1.0], [-2.0, 3.0])
    assert (low < -2, high > 3) == (True, True)
    assert draw.view_limits([0.0, 1.0], [-100.0, 100.0, nan]) == pytest.approx((-3.35, 4.35))
    assert draw.view_limits([0.5], [0.1, 0.9])[0] < 0.1  # one value has no range to judge by
    assert draw.view_limits([], []) == pytest.approx((-0.05, 1.05))

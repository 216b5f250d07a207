"""The tables of a search, against loops over its records by hand; which points are chosen."""

import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import recompute
from report_cases import Get
from report_results import EPSILON, Asked, hump, write_search

from ablate.errors import RecordError
from ablate.stats.surrogate import smoothed
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.results import ResultsFolder, write_sealed
from ablate.tables.files import frame
from ablate.tables.tuning import objective_values, points_table, tuning_tables, winners_of

FIRST = Asked({"epsilon": 0.1}, "baseline")


def measured(results: ResultsFolder, trial_id: str) -> dict[str, float]:
    """A trial's metrics, without ablate."""
    stored = np.load(results.root / "tuning" / "predictions" / f"{trial_id}.npz")
    return recompute.metrics_of(stored["logits"].astype(np.float64), stored["labels"])[1]


def test_points_without_a_value_show_how_far_they_came(tmp_path: Path) -> None:
    """Asked for and not begun; pruned after seeds, after epochs, and before any value."""
    results, pruned = ResultsFolder(tmp_path), {"state": "pruned", "pruned_at": 2}
    asked = [
        Asked({"epsilon": 0.1}, **pruned, done=3, intermediate={1: 0.9}),  # type: ignore[arg-type]
        Asked({"epsilon": 0.2}, **pruned, done=0, intermediate={1: 0.3, 4: 0.5}),  # type: ignore[arg-type]
        Asked({"epsilon": 0.3}, **pruned, done=0),  # type: ignore[arg-type]
        Asked({"epsilon": 0.4}, state="running", done=0),
    ]
    tuning = write_search(results, EPSILON, asked, strength=hump)
    *begun, last = tuning.points
    points = (*begun, last.model_copy(update={"trial_ids": ()}))
    write_sealed(results.tuning, tuning.model_copy(update={"points": points}))
    known = [measured(results, name)["accuracy"] for name in points[0].trial_ids[:3]]
    table, expected = points_table(results), [statistics.fmean(known), 0.5, math.nan]
    assert list(table["last_seen"][:3]) == pytest.approx(expected, nan_ok=True)
    row = table.iloc[3]
    assert (row["epsilon"], row["seeds_planned"], row["seeds_done"]) == (0.4, 5, 0)
    assert (row["arch"] is pd.NA, row["seconds"], math.isnan(row["value"])) == (True, 0.0, True)


def test_values_are_smoothed_at_the_places_of_the_space(rendered: Get) -> None:
    """Every kind of field: linear, logarithmic, categories, and one with a condition."""
    results = rendered("tuned_front").results
    table, tuning = points_table(results), read_tuning(results)
    assert tuning is not None
    done = [point for point in tuning.points if point.state == "complete"]
    places = [
        [
            point.levels["epsilon"],
            math.log10(point.levels["lr"]),
            *(point.levels["arch"] == name for name in "abcd"),
            "batch_size" in point.levels,
            (point.levels.get("batch_size", 32) - 32) / 96,
        ]
        for point in done
    ]
    samples = np.array([[measured(results, name)["nll"] for name in point.trial_ids] for point in done])
    mean, sd = smoothed(np.array(places, dtype=np.float64), list(samples), higher_is_better=False)
    own = table[table["state"] == "complete"]
    np.testing.assert_allclose(own["smoothed_2"], mean, rtol=1e-4)
    np.testing.assert_allclose(own["smoothed_sd_2"], sd, rtol=1e-2)
    assert table.loc[table["state"] != "complete", "smoothed"].isna().all()


def scored(objective: str, values: list[float], second: list[float] | None = None) -> pd.DataFrame:
    rows = [{"number": at, "objective": objective, "smoothed": value} for at, value in enumerate(values)]
    table = frame("points", rows).assign(state="complete")
    return table if second is None else table.assign(objective_2="nll", smoothed_2=second)


@given(st.lists(st.one_of(st.just(math.nan), st.sampled_from([0.1, 0.2, 0.3, 0.4])), max_size=8))
def test_the_winner_has_the_best_smoothed_value_and_the_lowest_number(values: list[float]) -> None:
    known = [value for value in values if math.isfinite(value)]
    for objective, best in (("accuracy", max), ("nll", min)):
        expected = (values.index(best(known)),) if known else ()
        table = scored(objective, values)
        assert winners_of(table) == expected
        assert winners_of(table.iloc[::-1]) == expected


def test_values_that_differ_by_rounding_are_equal() -> None:
    assert winners_of(scored("accuracy", [0.9, 0.9 + 1e-13, 0.9 + 1e-6])) == (2,)
    assert winners_of(scored("accuracy", [0.9, 0.9 + 1e-13])) == (0,)
    assert winners_of(scored("nll", [0.9 + 1e-13, 0.9])) == (0,)


def test_of_two_objectives_each_counts_by_its_own_direction_and_noise() -> None:
    """Of three good points and a bad one; what the other objective gains is within its noise."""
    known, noise = [0.0, 3.0, 2.0, -30.0, math.nan], [0.05, 0.05, 0.0, 0.05, math.nan]
    for table, of_first, of_second in (
        (scored("accuracy", known, noise), 0.01, 0.1),
        (scored("accuracy", [-value for value in noise], [-value for value in known]), 0.1, 0.01),
    ):
        assert winners_of(table.assign(smoothed_sd=of_first, smoothed_sd_2=of_second)) == (1,)
        assert winners_of(table.iloc[[4]]) == winners_of(table.iloc[:0]) == ()


def test_seeds_without_a_value_are_left_out(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path)
    point = write_search(results, EPSILON, [FIRST], strength=hump).points[0]
    values = objective_values(results, point, ("accuracy", "nll"))
    assert list(values) == list(point.seeds)
    first = measured(results, point.trial_ids[0])
    assert values[point.seeds[0]] == pytest.approx((first["accuracy"], first["nll"]))
    folder = tuning_folder(results)
    folder.record_path(point.trial_ids[0]).write_text("{", encoding="utf-8")
    folder.predictions_path(point.trial_ids[1]).write_bytes(b"")
    folder.record_path(point.trial_ids[2]).unlink()
    assert list(objective_values(results, point, ("accuracy",))) == list(point.seeds[3:])
    row, runs = points_table(results).iloc[0], tuning_tables(results)["point_values"]
    assert (row["state"], row["seeds_done"], math.isnan(row["value"])) == ("complete", 2, True)
    assert runs["status"].tolist() == ["unreadable", "unreadable", "missing", "complete", "complete"]
    assert winners_of(points_table(results)) == ()


def test_a_metric_that_is_not_defined_is_no_value(tmp_path: Path) -> None:
    """Without a wrong prediction, errors cannot be ranked."""
    results = ResultsFolder(tmp_path)
    point = write_search(results, EPSILON, [FIRST], strength=lambda levels: 50.0).points[0]
    assert objective_values(results, point, ("accuracy", "auroc_error")) == {}
    assert len(objective_values(results, point, ("accuracy",))) == 5


def test_without_the_searchs_predictions_the_written_tables_stay(tmp_path: Path) -> None:
    """As published: the search's declaration may lie there without what its values follow from."""
    results, published = ResultsFolder(tmp_path / "a"), ResultsFolder(tmp_path / "b")
    tuning = write_search(results, EPSILON, [FIRST], strength=hump)
    (published.root / "tuning").mkdir(parents=True)
    write_sealed(published.tuning, tuning)
    assert read_tuning(published) == tuning
    assert tuning_tables(published) == {}
    (results.root / "tuning" / "tuning.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecordError, match="damaged"):
        points_table(results)

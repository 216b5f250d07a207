"""What was planted is what the report says; sentences hold the numbers that scipy finds in the CSV files."""

from typing import Any

import pandas as pd
import pytest
from report_cases import Get
from report_pages import rows_of

from ablate.tables.files import read_tables
from ablate.tables.quantities import quantity


def test_the_report_says_what_was_planted(rendered: Get) -> None:
    """Mirroring costs five points, clipping nothing; the margin is two."""
    page = rendered("marked")
    effects = read_tables(page.results)["effects"].set_index(["kind", "term", "against", "metric"])
    claims = page.report["answer"]["claims"]
    assert len(claims) == (effects["verdict"] != "exploratory").sum() == 9
    for claim in claims:
        key: Any = ("arm", claim["term"], claim["against"], claim["metric"])
        row = effects.loc[key]
        planted = -0.05 if "flip=True" in claim["term"] else 0.0
        assert row.low <= planted <= row.high
        assert row.verdict == ("worse" if planted else "equivalent")
        columns = ["verdict", "effect", "low", "high", "n"]
        assert [claim[name] for name in columns] == row[columns].tolist()


def test_one_arm_is_described_with_its_interval(rendered: Get) -> None:
    page = rendered("single")
    runs = 100 * read_tables(page.results, names=["trials"])["trials"]["accuracy"]
    images = read_tables(page.results, names=["new_images"])["new_images"]
    (low, high), *_ = 100 * images.loc[images["metric"] == "accuracy", ["low", "high"]].to_numpy()
    said = [sentence["text"] for sentence in page.report["answer"]["sentences"]]
    assert " ".join(said[:2]) == (
        f"{page.report['published']['summary']} Accuracy {runs.mean():.2f} % "
        f"(95 % interval {low:.2f} to {high:.2f}, n = 3 training runs)."
    )


SURE = {
    "Seeds": "n", "Difference": "effect", "New images too": "low_images", "p": "p", "Welch's p": "p_welch",
    "Sign-flip p": "p_sign_flip", "Largest share": "largest_share", "ρ": "rho", "Detectable": "detectable",
}  # fmt: skip


def same(shown: float | None, known: Any) -> bool:
    return bool(pd.isna(known)) if shown is None else shown == pytest.approx(float(known), rel=1e-12)


@pytest.mark.parametrize("case", ["sweep", "factorial"])
def test_tables_of_the_page_hold_the_numbers_of_the_csv_files(rendered: Get, case: str) -> None:
    page = rendered(case)
    report, tables = page.report, read_tables(page.results)
    trials, effects = tables["trials"], tables["effects"]
    for cells, (_, trial) in zip(rows_of(report["trials"]), trials.iterrows(), strict=True):
        assert (cells["Trial"]["text"], cells["Seed"]["value"]) == (trial["trial_id"], trial["seed"])
        for head, column in {"Accuracy": "accuracy", "NLL": "nll", "Training step": "step_ms"}.items():
            assert same(cells[head]["value"], trial[column])
    for cells, (_, runs) in zip(rows_of(report["arms"]), trials.groupby("arm", sort=False), strict=True):
        floor = f"floor {100 * runs['ece_floor'].mean():.2f}"
        assert cells["ECE"]["notes"][1:] == [floor] * (cells["ECE"]["n"] > 0)
    for name, kinds in (("effects", "arm"), ("trends", "trend"), ("contrasts", "main interaction")):
        asked = effects[effects["kind"].isin(kinds.split())].groupby(["kind", "term", "against"], sort=False)
        for cells, (_, own) in zip(rows_of(report[name]), asked, strict=True):
            for metric, known in own.set_index("metric").loc[["accuracy", "nll", "ece"]].iterrows():
                cell = cells[f"Δ {quantity(str(metric)).label}"]
                assert cell["verdict"] == known["verdict"]
                shown = [cell[name] for name in ("value", "low", "high", "p_adjusted")]
                assert all(map(same, shown, known[["effect", "low", "high", "p_adjusted"]]))
    claimed = effects[effects["verdict"] != "exploratory"]
    for cells, (_, known) in zip(rows_of(report["sensitivity"]), claimed.iterrows(), strict=True):
        assert [head for head, column in SURE.items() if not same(cells[head]["value"], known[column])] == []
        assert same(cells["New images too"]["high"], known["high_images"])

"""What goes into a paper: the table of arms, read back from LaTeX and from Markdown, and the paragraph."""

import re
from pathlib import Path

import pandas as pd
import pytest
from references.recompute import mean_of
from report_cases import Get
from report_pages import markdown_page, squeezed
from scipy import stats
from test_main import ablate

from ablate.analysis.arms import level_label
from ablate.report.paper import arms_table
from ablate.store.results import read_plan
from ablate.study.trials import Plan
from ablate.tables.files import Tables, read_tables

METRICS = {"accuracy": "Accuracy (%)", "ece": "ECE (%)", "nll": "NLL (nats)"}
PRINTED = {
    r"$\varepsilon$": "ε", r"$\pm$": "±", "$-$": "−", r"$^{\dagger}$": "†", r"$^{\ddagger}$": "‡",
    r"\textendash{}": "–", r"\textasciigrave{}": "`",
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", "{}": "", **{f"\\{sign}": sign for sign in "&%$#_{}"},
}  # fmt: skip
SIGN = re.compile("|".join(map(re.escape, sorted(PRINTED, key=len, reverse=True))))


def printed(tex: str) -> str:
    """What LaTeX sets of a text, bold as in Markdown; beside the known signs it holds nothing special."""
    tex = re.sub(r"\\rlap\{(.*)\}$", r"\1", re.sub(r"\\textbf\{(.*?)\}", r"**\1**", tex.strip()))
    assert not re.search(r"[\\&%$#_{}~^<>|`]|--", SIGN.sub(" ", tex)), tex
    return SIGN.sub(lambda found: PRINTED[found[0]], tex)


def read_tex(latex: str) -> tuple[str, list[list[str]]]:
    """Caption and printed rows of a booktabs table, the head first; cells of one head joined."""
    found = re.fullmatch(
        r"\\begin\{table\}\[tbp\]\n\\centering\n\\caption\{(.*)\}\n\\label\{tab:[A-Za-z0-9-]+\}\n"
        r"\\begin\{tabular\}\{([lr]|@\{\\ \}|)*\}\n\\toprule\n(.*) \\\\\n\\midrule\n(.*) \\\\\n\\bottomrule\n"
        r"\\end\{tabular\}\n\\end\{table\}\n",
        latex,
        flags=re.DOTALL,
    )
    assert found is not None, latex
    heads = [re.fullmatch(r"(?:\\multicolumn\{(\d)\}\{c\}\{)?(.*?)\}?", one) for one in found[3].split(" & ")]
    spans = [(int(head[1] or 1), printed(head[2])) for head in heads if head]
    rows = [[head for _, head in spans]]
    columns = re.findall(r"[lr]", re.findall(r"tabular\}\{(.*)\}\n", latex)[0].replace(r"@{\ }", ""))
    for line in found[4].split(" \\\\\n"):
        assert line[0] not in "[*"  # which TeX would take as a part of the \\ before
        cells = iter(re.split(r" (?<!\\)& ", line))
        rows.append([" ".join(filter(None, (printed(next(cells)) for _ in range(n)))) for n, _ in spans])
        assert next(cells, None) is None
    assert sum(n for n, _ in spans) == len(columns)
    return printed(found[1]), rows


def expected(tables: Tables, plan: Plan, spread: str) -> list[list[str]]:
    trials, effects = tables["trials"], tables["effects"]
    arms = trials[trials["status"] == "complete"].groupby("arm")
    claims = effects[(effects["kind"] == "arm") & (effects["verdict"] != "exploratory")]
    words = claims.set_index(["term", "metric"])["verdict"].to_dict()
    uneven = arms.size().reindex(list(plan.arms)).fillna(0).nunique() > 1
    factors = ["ε" if name == "epsilon" else name for name in plan.study.factors]
    rows = [[*factors, *(["n"] if uneven else []), *METRICS.values()]]
    for arm in plan.arms:
        levels = next(trial.levels for trial in plan.trials if trial.arm == arm)
        n = len(arms.get_group(arm)) if arm in arms.groups else 0
        rows.append([*map(level_label, levels.values()), *([str(n)] if uneven else [])])
        for metric in METRICS:
            scale, digits = (1, 4) if metric == "nll" else (100, 2)
            values = scale * (arms.get_group(arm)[metric] if n else pd.Series(dtype=float)).to_numpy(float)
            means = (scale * arms[metric].mean()).map(lambda x, digits=digits: f"{x:.{digits}f}")
            text = f"{values.mean():.{digits}f}" if n else "–"
            if text == (max if metric == "accuracy" else min)(means, key=float):
                text = f"**{text}**"
            if n > 1:
                low, high = (scale * end for end in mean_of(values / scale, metric=metric)[1:])
                text += {
                    "ci": f" [{low:.{digits}f}, {high:.{digits}f}]", "none": "",
                    "sd": f" ± {values.std(ddof=1):.{digits}f}", "se": f" ± {stats.sem(values):.{digits}f}",
                }[spread]  # fmt: skip
            mark = {"equivalent": "‡", "better": "†", "worse": "†"}.get(words.get((arm, metric), ""), "")
            rows[-1].append((text + mark).replace("-", "−"))
    return rows


@pytest.mark.parametrize("case", ["sweep", "factorial", "hostile", "marked"])
@pytest.mark.parametrize("spread", ["ci", "sd", "se", "none"])
def test_both_tables_are_those_of_pandas_and_mark_the_claims(rendered: Get, case: str, spread: str) -> None:
    page = rendered(case)
    tables, plan = read_tables(page.results), read_plan(page.results)
    rows = expected(tables, plan, spread)
    made = {tex: arms_table(tables["trials"], plan, [*METRICS], spread, latex=tex) for tex in (True, False)}
    caption, of_tex = read_tex(made[True])
    assert [[cell.replace(" †", "†") for cell in row] for row in of_tex] == rows
    (body,) = markdown_page(made[False]).bodies()
    plain = [[[squeezed(cell.replace("**", ""))] for cell in row] for row in rows[1:]]
    assert body == plain
    assert caption == squeezed(markdown_page(made[False].split("\n\n")[1]).words())
    text = str(rows)
    assert [sign in caption for sign in "†‡"] == [sign in text for sign in "†‡"]
    claims = (tables["effects"]["verdict"] != "exploratory").sum()
    assert f"over {claims} claims" in caption or not set("†‡") & set(text)
    said = {"ci": "95 % t intervals", "sd": "± standard deviation", "se": "± standard error", "none": ";"}
    assert said[spread] in caption


def test_the_command_shows_or_writes_it_and_names_an_unknown_metric(rendered: Get, tmp_path: Path) -> None:
    table = ("table", str(rendered("sweep").results.root))
    shown = ablate(tmp_path, *table, "--metric", "nll", "--metric", "brier")
    assert (shown.status, shown.out.splitlines()[0]) == (0, "| ε | NLL (nats) | Brier score |")
    quiet = ablate(tmp_path, *table, "--latex", "--interval", "se", "--out", "arms.tex")
    assert (quiet.status, quiet.out) == (0, "")
    assert read_tex((tmp_path / "arms.tex").read_text("utf-8"))[1][0] == ["ε", "Accuracy (%)", "ECE (%)"]
    assert "--metric acuracy" in ablate(tmp_path, *table, "--metric", "acuracy").err
    assert "Is a directory" in ablate(tmp_path, *table, "--out", str(tmp_path)).err


@pytest.mark.parametrize("case", ["sweep", "factorial", "single", "tuned", "nothing_ran"])
def test_the_paragraph_names_what_was_done_and_each_source_that_it_cites(rendered: Get, case: str) -> None:
    page = rendered(case)
    plan, effects = read_plan(page.results), read_tables(page.results)["effects"]
    told = page.report["methods_paragraph"]
    cited = set(re.findall(r"\((\w+(?: et al\.)? \d{4})\)", told["text"]))
    assert cited == {source.partition(",")[0] for source in told["references"]}
    assert all("https://" in source for source in told["references"])
    claims = (effects["verdict"] != "exploratory").sum()
    assert ("We asked" in told["text"]) == (claims > 0)
    assert claims == 0 or f"over all {claims} claims" in told["text"]
    arms, seeds = len(plan.arms), len(plan.study.seed_list())
    assert f"{arms} setting{'s' * (arms > 1)} with {seeds} random seeds" in told["text"]
    assert f"{(read_tables(page.results)['trials']['status'] == 'complete').sum()} of" in told["text"]
    assert ("Guo et al. 2017" in cited) == ("ece" in plan.study.comparison_family)
    for words in (page.page.words(), page.markdown_page.words()):
        assert squeezed(told["text"]) in words

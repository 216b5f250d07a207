"""Write gallery.md, what each study in results/reference found, from its records: python docs/gallery.py."""

from pathlib import Path

from ablate.analysis.arms import of_plan
from ablate.report.content import build_report, derived_tables
from ablate.store.results import ResultsFolder
from ablate.tables.columns import COLUMNS, DERIVED, open_plan
from ablate.tables.files import read_tables

PAGE = Path(__file__).with_name("gallery.md")
ROOT = PAGE.parents[1]
PICTURES = ("answer", "published", "accuracy")
HEAD = """# Studies that the project publishes

What each asked, what came out, and a picture of it, written from the records in `results/reference/` by
`python docs/gallery.py`. All ran on a CPU, on small images for few epochs: take them as examples of what a
study says, before you take them as evidence.
"""


def gallery() -> str:
    """The page as it follows from the records."""
    plans = sorted((ROOT / "results/reference").glob("*/*/study.json"))
    return "\n".join([HEAD, *(entry(ResultsFolder(plan.parent)) for plan in plans)])


def entry(folder: ResultsFolder) -> str:
    """One study: its question, its answer, its picture."""
    plan = open_plan(folder)
    tables = of_plan(read_tables(folder, names=[name for name in COLUMNS if name not in DERIVED]), plan)
    report = build_report({**tables, **derived_tables(tables, plan)}, plan, [])
    found = report["answer"]
    said = found.get("tuning", {}).get("verdict") or found["recommendation"] or found["sentences"][0]["text"]
    place = Path("report/reference", *folder.names)
    drawn = (place / "figures" / f"{name}.svg" for name in PICTURES)
    picture = next(path for path in drawn if (ROOT / path).is_file())
    return f"""## {plan.study.name}

{plan.study.question} **{said}**

{found["about"]}. [The whole report](../{place}/report.md) ([as a page](../{place}/index.html)),
[the study](../studies/{plan.study.name}.py), [its records](../{folder.root.relative_to(ROOT)}).

![{plan.study.name}: {picture.stem}](../{picture})
"""


if __name__ == "__main__":
    PAGE.write_text(gallery(), encoding="utf-8")

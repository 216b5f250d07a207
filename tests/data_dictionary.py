"""What results/README.md holds, from the code: `python tests/data_dictionary.py > results/README.md`."""

from ablate.tables.columns import COLUMNS


def data_dictionary() -> str:
    """Every table and column with unit, direction and meaning."""
    lines = [
        "# Tables",
        "",
        "What the CSV files beside the records hold, and what `ablate.load_tables` returns.",
        "Numbers are unrounded; accuracies, confidences and calibration errors are fractions of 1.",
        "An argument of code that a study sets, as `arch.dropout`, is a column of `trials` and `points`",
        "after ablate's fields: of numbers where all its values are, otherwise of text. A metric that a",
        "study declares is a number in `trials`, after ablate's own.",
        "This page is generated from the code.",
    ]
    for table, columns in COLUMNS.items():
        lines += ["", f"## {table}", ""]
        lines += ["| column | kind | unit | better | meaning |", "|---|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.kind} | {c.stored_unit} | {c.better} | {c.meaning} |" for c in columns]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(data_dictionary(), end="")

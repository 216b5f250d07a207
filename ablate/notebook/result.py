"""What a run from Python came to, and how a notebook shows it."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

from ablate.tables import Tables

REPORT_HEIGHT = "44rem"


@dataclass(frozen=True, repr=False)
class Run:
    """What a run came to. As the last line of a notebook cell it shows its report.

    Attributes:
        tables: DataFrames by name (trials, epochs, reliability, effects); columns as in results/README.md.
        report: the report's page, index.html.
        folder: where the study's records and tables are.
        ran: trials that were run; those recorded before are not counted.
        failed: trials of the study that ended without a result; the report says why.
        interrupted: whether it was stopped; the same call goes on where it stopped.
        page: the report as it was after this run; a later run of the study overwrites the file.
    """

    tables: Tables
    report: Path
    folder: Path
    ran: int
    failed: int
    interrupted: bool
    page: str = field(compare=False)

    def __repr__(self) -> str:
        first, *rest = self._lines()
        return "\n".join([f"{first}; {self.ran} run just now", *rest, f"report: {self.report}"])

    def _lines(self) -> list[str]:
        """The study and how much of it has a result, then what is to be done about the rest."""
        trials = self.tables["trials"]
        name, profile = self.folder.parent.name, self.folder.name
        complete = int((trials["status"] == "complete").sum())
        lines = [f"{name} ({profile}): {complete} of {len(trials)} trials complete"]
        if self.interrupted:
            lines.append("interrupted: the report is partial; the same call goes on")
        if self.failed:
            lines.append(
                f"{self.failed} trials have no result; the report says why; retry_failed=True runs them again"
            )
        return lines

    def _repr_html_(self) -> str:
        """The report in a frame of its own, sealed off from the notebook; above it the same in words."""
        words = "<br>".join(html.escape(line) for line in repr(self).splitlines())
        # A frame's `#arms` would lead to the notebook's own address, so its links name the frame itself.
        page = self.page.replace('href="#', 'href="about:srcdoc#')
        style = f"width:100%;height:{REPORT_HEIGHT};border:1px solid #8888;border-radius:4px;resize:vertical"
        return (
            f"<div>{words}</div>\n"
            f'<iframe title="Report" sandbox="allow-scripts allow-downloads" style="{style}" '
            f'srcdoc="{html.escape(page)}"></iframe>'
        )

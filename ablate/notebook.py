"""What a run from Python came to, and how a notebook shows it."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

from ablate.tables import Tables

REPORT_HEIGHT = "44rem"


@dataclass(frozen=True, repr=False)
class Run:
    """What a run or a search came to. As the last line of a notebook cell it shows its report.

    Attributes:
        folder: where the study's records and tables are.
        ran: trials that were run; those recorded before are not counted.
        failed: trials of the study that ended without a result.
        tables: DataFrames by name (trials, epochs, reliability, effects); columns as in results/README.md.
        report: the report's page, index.html; None of a search that has no re-test yet, nor has that tables.
        page: the report as it was after this run; a later run of the study overwrites the file.
        answer: its first screen, in lines of text.
    """

    folder: Path
    ran: int
    failed: int
    interrupted: bool
    tables: Tables = field(default_factory=dict)
    report: Path | None = None
    page: str = field(default="", compare=False)
    answer: tuple[str, ...] = ()

    def stopped(self, what: str) -> str:
        """That it was stopped, and what goes on where it stopped: the same call, the same command."""
        return f"interrupted: {'the report is partial; ' if self.report else ''}the same {what} goes on"

    def __repr__(self) -> str:
        state = "no report yet"
        if self.report:
            trials = self.tables["trials"]
            state = f"{(trials['status'] == 'complete').sum()} of {len(trials)} trials complete"
        lines = [f"{self.folder.parent.name} ({self.folder.name}): {state}; {self.ran} run just now"]
        if self.interrupted:
            lines.append(self.stopped("call"))
        if self.failed:
            own = self.report and self.report.parent != self.folder  # not of another tool
            again = "; retry_failed=True runs them again" if own else ""
            lines.append(f"{self.failed} trials have no result; the report says why{again}")
        return "\n".join([*lines, *self.answer, *([f"report: {self.report}"] if self.report else [])])

    def _repr_html_(self) -> str:
        """The report in a frame of its own, sealed off from the notebook; above it the same in words."""
        words = "<br>".join(html.escape(line) for line in repr(self).splitlines())
        if not self.report:
            return f"<div>{words}</div>"
        # A frame's `#arms` would lead to the notebook's own address, so its links name the frame itself.
        page = self.page.replace('href="#', 'href="about:srcdoc#')
        style = f"width:100%;height:{REPORT_HEIGHT};border:1px solid #8888;border-radius:4px;resize:vertical"
        return (
            f"<div>{words}</div>\n"
            f'<iframe title="Report" sandbox="allow-scripts allow-downloads" style="{style}" '
            f'srcdoc="{html.escape(page)}"></iframe>'
        )

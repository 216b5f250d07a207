"""Studies from Python and in notebooks: `Study.run`, what it returns, and what it shows meanwhile."""

from ablate.notebook.result import Run
from ablate.notebook.run import Arguments, run
from ablate.notebook.view import NotebookView, in_notebook

__all__ = ["Arguments", "NotebookView", "Run", "in_notebook", "run"]

"""From trials to records: one trial in a worker, the workers, and the driver that gives them work."""

from ablate.execution.events import Done, Event, InlineExecutor, Job, Lost, Started, Told
from ablate.execution.local import LocalExecutor

Executor = LocalExecutor | InlineExecutor

__all__ = ["Done", "Event", "Executor", "InlineExecutor", "Job", "LocalExecutor", "Lost", "Started", "Told"]

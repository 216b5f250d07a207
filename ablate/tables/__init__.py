"""Records and metrics as pandas tables and CSV files. The only room that names columns.

A report reads the CSV files, so that published results can be rendered again without their predictions.
"""

from ablate.tables.build import build_tables
from ablate.tables.columns import COLUMNS, DERIVED, TUNING, data_dictionary
from ablate.tables.files import Tables, frame, open_plan, read_tables, write_tables
from ablate.tables.tuning import objective_values, points_table, winners_of

__all__ = [
    "COLUMNS", "DERIVED", "TUNING", "Tables", "build_tables", "data_dictionary", "frame",
    "objective_values", "open_plan", "points_table", "read_tables", "winners_of", "write_tables",
]  # fmt: skip

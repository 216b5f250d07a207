"""Records and metrics as pandas tables and CSV files. The only room that names columns.

A report reads the CSV files, so that published results can be rendered again without their predictions.
"""

"""Records and metrics as pandas tables and CSV files, which reports read. No other room names columns."""

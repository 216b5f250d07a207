"""What is kept: where results lie, the plan, records and predictions, points of a search, provenance."""

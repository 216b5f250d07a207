"""From trials to records: one trial in a worker, the workers, and the driver that gives them work."""

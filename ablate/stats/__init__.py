"""Statistics over seeds: intervals, effects, verdicts and power. Arrays in, numbers out."""

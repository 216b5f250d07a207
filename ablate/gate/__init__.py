"""What is asked of recorded studies: two runs side by side, conditions for a test, what a run would add."""

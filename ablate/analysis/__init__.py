"""What the tables say: arms, effects, contrasts, trends, and what a step costs."""

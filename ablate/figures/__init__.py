"""Figures: each is one function over a study's tables, registered where it is written.

Whatever module of this room registers a figure is found by being here. Matplotlib and seaborn are imported
when figures are drawn, and not before.
"""

from ablate.figures.registry import Figure, draw_figures

__all__ = ["Figure", "draw_figures"]

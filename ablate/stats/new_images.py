"""Interval of an effect for new images as well as new seeds.

The t interval over seeds tells what other seeds would give on these validation images. What other images
would give varies too: an arm may suit these. A difference of seed s on image i is taken as

    difference[s, i] = effect + seed[s] + image[i] + rest[s, i]

and the mean over both has the variance V(seed)/n + V(image)/N + V(rest)/(nN). Its estimate is
s2_seed/n + s2_image/N - within/(nN), as the spreads of the seeds' and of the images' means each hold V(rest).

The interval squares and adds two half-widths, each with its own t: n - 1 degrees of freedom for the seeds and
N - 1 for what the images add. It thus always holds the interval over seeds. In simulations (20,000 each;
N = 100; n of 2, 3 and 5; images adding 0 to 10 times the seeds' variance) it covered 95.3 to 98.7 % where
95 % was asked, and 99.2 to 99.95 % for 99.17 % (six comparisons). With Satterthwaite's degrees of freedom
that fell to 92.0 % at n = 2, to 93.4 % at n = 3, and to 97.7 % of 99.17 %: a spread seen from few seeds is
often far too small, and then it also raises them. With the smaller of the two, n - 1 or N - 1, for the whole,
it rose to 100 %, in intervals up to three times as wide.

References:
    Cornfield and Tukey 1956, Average values of mean squares in factorials,
    https://doi.org/10.1214/aoms/1177728067;
    Zou and Donner 2008, Construction of confidence limits about effect measures: a general approach (adding
    squared half-widths), https://doi.org/10.1002/sim.3095
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ablate.stats.intervals import FloatArray, check_family


def new_images_interval(
    differences: NDArray[np.floating], *, confidence: float = 0.95, comparisons: int = 1
) -> tuple[float, float, float]:
    """Mean paired difference, and the ends of its interval for new images and new seeds.

    For metrics that are a mean over images, as accuracy, NLL and the Brier score are; an ECE is none.

    Args:
        differences: [n, N], arm - baseline, a row per seed and a column per image of the same validation set.
            A row of NaN marks a missing seed and is left out.
        confidence: coverage in (0, 1) of all the family's intervals together.
        comparisons: effects in the family (Bonferroni), at least 1.

    Returns:
        The mean, NaN without seeds; the ends, NaN for fewer than two seeds or images or where nothing varies.
    """
    check_family(comparisons, confidence=confidence)
    if differences.ndim != 2:
        raise ValueError(
            f"Expected differences of shape [n seeds, N images], got {differences.shape}; "
            "pass those of one comparison."
        )
    present: FloatArray = differences[~np.isnan(differences).all(axis=1)].astype(np.float64)
    if not np.isfinite(present).all():
        raise ValueError(
            "Expected each row finite, or all NaN where the seed is missing, got "
            f"{np.sum(~np.isfinite(present))} other values; every seed is scored on the same images."
        )
    n, images = present.shape
    effect = float(present.mean()) if present.size else math.nan
    if n < 2 or images < 2:
        return effect, math.nan, math.nan
    by_seed: FloatArray = present.mean(axis=1)
    by_image: FloatArray = present.mean(axis=0)
    rest: FloatArray = present - by_seed[:, None] - by_image + present.mean()
    within = float((rest**2).sum()) / ((n - 1) * (images - 1))
    se_seeds = math.sqrt(float(by_seed.var(ddof=1)) / n)
    se_images = math.sqrt(max(float(by_image.var(ddof=1)) - within / n, 0.0) / images)
    tail = (1 - confidence) / (2 * comparisons)
    t_seeds, t_images = float(stdtrit(n - 1, tail)), float(stdtrit(images - 1, tail))
    margin = math.hypot(t_seeds * se_seeds, t_images * se_images)
    # Equal differences come out apart by the rounding of their means.
    if margin <= 1e-12 * float(np.abs(present).max()):
        margin = math.nan
    return effect, effect - margin, effect + margin

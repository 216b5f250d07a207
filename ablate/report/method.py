"""What each number of the report means, a paragraph for each decision."""

from __future__ import annotations

from ablate.analysis.effects import terms
from ablate.study.trials import Plan
from ablate.tables.cells import Json

LABEL_SMOOTHING = (
    "ε is spread over all K classes: the target of the true class is 1 − ε + ε/K, that of every other "
    "class ε/K. This is torch's convention; the other one spreads ε over the K − 1 wrong classes. "
    "Training losses with different ε are different losses and are not to be compared. Metrics are never "
    "smoothed; only the loss that the epochs show for the reported split is the training loss, smoothed "
    "like it."
)
REPLICATE = (
    "The replicate is a training run. Arms share a seed's initial weights and order of images, so they "
    "are compared in pairs of the same seed. Only seeds that are complete in both arms count."
)
MEANS = "Means carry 95 % t intervals over training runs."
CALIBRATION = (
    "ECE is the expected calibration error of the predicted class in 15 bins of equal width, not "
    "debiased. Its noise floor is the mean ECE that a perfectly calibrated network with the same "
    "confidences would score on as many images: a value near it cannot be told from 0. How near, its band "
    "says where figures show one: the central 95 % of such scores, with the labels drawn anew from the "
    "probabilities that each arm's first complete run predicts. The bands of ECE, ECE of equal mass and MCE "
    "are computed without drawing; of classwise and smooth ECE the ends are quantiles of 500 and 250 draws, "
    "uncertain by about 12 % and 17 % of the score's standard deviation. The confidence gap is mean "
    "confidence minus accuracy. The Brier score is summed over the classes."
)
TEMPERATURE = (
    "Fitted by cross-fitting over folds of the reported images, so that no image is scaled by a "
    "temperature that it helped to fit. The temperature shown is the mean of the folds'. There are five "
    "folds, by the remainder of numpy's RandomState(0).permutation(N) divided by 5; T lies within 0.01 and "
    "10,000."
)
REPORTED_SPLIT = (
    "All metrics are those of the last epoch on the dataset's validation split, which took no part in "
    "training. No epoch was chosen by its result. Where a level is picked by these numbers, its own "
    "number is too good: run it again with fresh seeds."
)
VERDICTS = (
    "Equivalent: the equivalence test (two one-sided t tests against the margin that the study declares) "
    "passes, corrected for the number of comparisons; if the interval excludes 0 as well, the arms differ by "
    "less than matters. Better or worse: the simultaneous interval excludes 0, which is an adjusted p of at "
    "most 0.05. Undecided: anything else, and any comparison of which a planned pair is missing. The seeds "
    "named with it are those of a new study with the spread seen here: the fewest, up to 1,000, that have a "
    "power of 80 % for a difference as large as the one seen, or for showing equivalence if there is none. "
    "Adding seeds to this one until it decides would be another test. Holm's correction rejects a little "
    "more, but has no intervals that agree with it; its p is in the table of effects, and no verdict rests "
    "on it."
)
NEW_IMAGES = (
    "The intervals speak of new training runs on these images. The table of effects also holds, for metrics "
    "that are means over images, the interval for new images as well (low_images to high_images): it adds "
    "the squares of two half-widths, that over seeds and that of what the images add, each with its own t "
    "(n − 1 and N − 1 degrees of freedom)."
)
SKEW = (
    "The t tests allow for unequal spread. Where one arm's results are strongly skewed, as when some of its "
    "runs nearly fail, they reject too often: look at the single runs."
)
CERTAINTY = (
    "Holm's p corrects step by step over the family. The sign-flip p is the share of all sign patterns of "
    "the paired differences with a mean as far from 0 as the one seen: it assumes symmetry and no normal "
    "spread, but n pairs can give none below 2 / 2^n. ρ is the correlation of the two arms over seeds, which "
    "is what pairing them has bought. Detectable is the smallest true difference that a study of as many "
    "pairs, with the spread seen here and at the family's corrected level, finds with a power of 80 %: a "
    "smaller one is likely to be missed. Only the adjusted p and the equivalence test decide a verdict."
)
AVERAGES = (
    "Main effects, interactions and trends are computed within each seed and averaged over the combinations "
    "of the other factors' levels. The trends are a family of their own, and so are main effects and "
    "interactions together, each over the study's family of metrics and with its margins. A trend is a "
    "seed's least-squares slope over the levels, times their range, judged like paired differences; a seed "
    "that lacks a level is left out, and a hump in the middle has no slope. A positive interaction is "
    "higher, and neither better nor worse. Whatever lacks a planned combination or seed is undecided."
)
RANKING = (
    "Errors are ranked by the probability of the predicted class, told apart by 1 − p where p rounds to 1; "
    "and once by the highest logit, with the logits centred at their mean and divided by the norm of the "
    "centred ones, to 12 decimals. Equals count as one group: half a pair in an AUROC, the mean over orders "
    "in AURC, answered together in a coverage. AURC is the area under the risk-coverage curve, E-AURC what "
    "it has above the best order of the same errors; both depend on accuracy, the AUROC of errors does not. "
    "Scatter is of the penultimate layer's directions: the mean cosine distance inside a class, and what the "
    "classes add to it."
)
STEP_TIME = (
    "Timed after the trials in a pass of its own, the kinds of step in turn, plain cross-entropy among them. "
    "The step times in the table of trials come from a machine that other trials may have shared."
)


def method(plan: Plan) -> list[Json]:
    """The paragraphs, in reading order."""
    paragraphs = {
        "Label smoothing": LABEL_SMOOTHING,
        "What is repeated": REPLICATE,
        "Intervals": " ".join(part for part in (MEANS, _comparisons_text(plan), NEW_IMAGES) if part),
        **({"Verdicts": f"{VERDICTS} {SKEW}", "How sure": CERTAINTY} if plan.comparisons else {}),
        **({"Averages and trends": AVERAGES} if _averages(plan) else {}),
        "Calibration": CALIBRATION,
        "Temperature": TEMPERATURE,
        "Ranking and scatter": RANKING,
        "Reported split": REPORTED_SPLIT,
        "Step time": STEP_TIME,
    }
    return [{"title": title, "text": text} for title, text in paragraphs.items()]


def _averages(plan: Plan) -> bool:
    return any(term.kind != "arm" for term in terms(plan))


def _comparisons_text(plan: Plan) -> str:
    pairs, family = len(plan.comparisons), plan.study.comparison_family
    if not pairs:
        return ""
    named = ", ".join(_with_margin(name, plan) for name in family)
    return (
        "Differences are means of paired differences, with t intervals and paired t tests. The family is "
        f"{named} in {pairs} planned comparisons: {pairs * len(family)} intervals that hold "
        "together at 95 % (Bonferroni), and p corrected alike. Intervals of other metrics hold at 95 % each, "
        "and are exploratory."
    )


def _with_margin(metric: str, plan: Plan) -> str:
    """A metric with the margin that its verdicts use, in the table's unit."""
    margin = plan.study.all_margins.get(metric)
    return f"{metric} (margin {margin:g})" if margin is not None else f"{metric} (no margin)"

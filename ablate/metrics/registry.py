"""The metrics by name, each with what a reader of its column must know."""

import math
from dataclasses import dataclass

from ablate.metrics import accuracy, calibration, noise_floor, proper_scores, scaled, selective, smooth
from ablate.metrics.predictions import MetricFunction
from ablate.metrics.temperature import TEMPERATURE_BOUNDS


@dataclass(frozen=True)
class Metric:
    """A metric and what a reader of its column must know.

    Attributes:
        name: column name and key in `METRICS`.
        function: logits [N, K] and labels [N] to a float.
        definition: one sentence.
        unit: of the unrounded value.
        lower: smallest possible value.
        upper: largest possible value, infinity where there is none.
        higher_is_better: None where neither direction is.
        version: raised when a change alters values, so that older numbers can be told apart.
        source: citation with link.
    """

    name: str
    function: MetricFunction
    definition: str
    unit: str
    lower: float
    upper: float
    higher_is_better: bool | None
    version: int
    source: str


_CONSISTENCY = "Bröcker and Smith 2007, https://doi.org/10.1175/WAF993.1"
_GEIFMAN = "Geifman, Uziel and El-Yaniv 2019, https://arxiv.org/abs/1805.08206"
_GUO = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
_NAEINI = "Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602"
_ROELOFS = "Roelofs et al. 2022, https://arxiv.org/abs/2012.08668"

METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        name="accuracy",
        function=accuracy.accuracy,
        definition="Share of images whose highest logit is the label's; ties predict the lowest class id.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        version=1,
        source="scikit-learn, https://scikit-learn.org/stable/modules/model_evaluation.html#accuracy-score",
    ),
    "nll": Metric(
        name="nll",
        function=proper_scores.nll,
        definition="Mean negative log-likelihood of the labels, natural log, never smoothed.",
        unit="nats",
        lower=0.0,
        upper=math.inf,
        higher_is_better=False,
        version=1,
        source="Gneiting and Raftery 2007, https://doi.org/10.1198/016214506000001437",
    ),
    "brier": Metric(
        name="brier",
        function=proper_scores.brier,
        definition="Squared error of the probabilities, summed over classes (not divided by K), image mean.",
        unit="squared probability",
        lower=0.0,
        upper=2.0,
        higher_is_better=False,
        version=1,
        source="Brier 1950, https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2",
    ),
    "ece": Metric(
        name="ece",
        function=calibration.ece,
        definition="Expected calibration error of the top label, plug-in, 15 bins of equal width in [0, 1].",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=f"{_NAEINI}; {_GUO}",
    ),
    "ece_floor": Metric(
        name="ece_floor",
        function=noise_floor.ece_floor,
        definition="Mean `ece` of a perfectly calibrated model with the same confidences on as many images.",
        unit="fraction",
        lower=0.0,
        upper=0.5,
        higher_is_better=None,
        version=1,
        source=_CONSISTENCY,
    ),
    "ece_equal_mass": Metric(
        name="ece_equal_mass",
        function=calibration.ece_equal_mass,
        definition="`ece` with 15 bins of equal mass; images of equal confidence share a bin.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=f"Nixon et al. 2019, https://arxiv.org/abs/1904.01685; {_ROELOFS}",
    ),
    "ece_equal_mass_floor": Metric(
        name="ece_equal_mass_floor",
        function=noise_floor.ece_equal_mass_floor,
        definition="Mean `ece_equal_mass` of a perfectly calibrated model with the same confidences.",
        unit="fraction",
        lower=0.0,
        upper=0.5,
        higher_is_better=None,
        version=1,
        source=_CONSISTENCY,
    ),
    "ece_debiased": Metric(
        name="ece_debiased",
        function=calibration.ece_debiased,
        definition="Signed root of the debiased squared calibration error, top label, 15 bins of equal mass.",
        unit="fraction",
        lower=-0.5,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=f"Kumar, Liang and Ma 2019, https://arxiv.org/abs/1909.10155; {_ROELOFS}",
    ),
    "smece": Metric(
        name="smece",
        function=smooth.smece,
        definition="Smooth calibration error of the top label, the Gaussian as wide as the error itself.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source="Błasiok and Nakkiran 2023, https://arxiv.org/abs/2309.12236",
    ),
    "smece_floor": Metric(
        name="smece_floor",
        function=noise_floor.smece_floor,
        definition="Mean `smece` of a perfectly calibrated model with the same confidences, 64 draws.",
        unit="fraction",
        lower=0.0,
        upper=0.5,
        higher_is_better=None,
        version=1,
        source=_CONSISTENCY,
    ),
    "classwise_ece": Metric(
        name="classwise_ece",
        function=calibration.classwise_ece,
        definition="Mean over classes of the `ece` of each class's probability, 15 bins of equal width.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source="Kull et al. 2019, https://arxiv.org/abs/1910.12656",
    ),
    "classwise_ece_floor": Metric(
        name="classwise_ece_floor",
        function=noise_floor.classwise_ece_floor,
        definition="Mean `classwise_ece` of a perfectly calibrated model with the same probabilities.",
        unit="fraction",
        lower=0.0,
        upper=0.5,
        higher_is_better=None,
        version=1,
        source=_CONSISTENCY,
    ),
    "mce": Metric(
        name="mce",
        function=calibration.mce,
        definition="Maximum calibration error of the top label: the largest gap of 15 bins of equal width.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=_NAEINI,
    ),
    "mce_floor": Metric(
        name="mce_floor",
        function=noise_floor.mce_floor,
        definition="Mean `mce` of a perfectly calibrated model with the same confidences.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=None,
        version=1,
        source=_CONSISTENCY,
    ),
    "mean_confidence": Metric(
        name="mean_confidence",
        function=calibration.mean_confidence,
        definition="Mean probability of the predicted class.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=None,
        version=1,
        source=_GUO,
    ),
    "confidence_gap": Metric(
        name="confidence_gap",
        function=calibration.confidence_gap,
        definition="Mean confidence minus accuracy: above 0 over-confident, below 0 under-confident.",
        unit="fraction",
        lower=-1.0,
        upper=1.0,
        higher_is_better=None,
        version=1,
        source=_GUO,
    ),
    "temperature": Metric(
        name="temperature",
        function=scaled.temperature,
        definition="Mean over 5 folds of the T that minimises the NLL of logits / T on the other folds.",
        unit="ratio",
        lower=TEMPERATURE_BOUNDS[0],
        upper=TEMPERATURE_BOUNDS[1],
        higher_is_better=None,
        version=1,
        source=f"{_GUO}, section 4.2, cross-fitted here",
    ),
    "ece_scaled": Metric(
        name="ece_scaled",
        function=scaled.ece_scaled,
        definition="`ece` after temperature scaling, each image with the T fitted without its fold.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=f"{_GUO}, section 4.2, cross-fitted here",
    ),
    "nll_scaled": Metric(
        name="nll_scaled",
        function=scaled.nll_scaled,
        definition="`nll` after temperature scaling, each image with the T fitted without its fold.",
        unit="nats",
        lower=0.0,
        upper=math.inf,
        higher_is_better=False,
        version=1,
        source=f"{_GUO}, section 4.2, cross-fitted here",
    ),
    "auroc_error": Metric(
        name="auroc_error",
        function=selective.auroc_error,
        definition="AUROC of the confidence for right against wrong predictions; empty without both.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        version=1,
        source="Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136",
    ),
    "auroc_error_normalised": Metric(
        name="auroc_error_normalised",
        function=selective.auroc_error_normalised,
        definition="`auroc_error` ranked by the highest logit, centred and divided by the logits' norm.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        version=1,
        source="Xia et al. 2025, https://arxiv.org/abs/2403.14715",
    ),
    "aurc": Metric(
        name="aurc",
        function=selective.aurc,
        definition="Area under the risk-coverage curve: error rate of the n most confident, mean over n.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=_GEIFMAN,
    ),
    "eaurc": Metric(
        name="eaurc",
        function=selective.eaurc,
        definition="`aurc` minus the `aurc` of the best ranking of the same predictions.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=False,
        version=1,
        source=_GEIFMAN,
    ),
    "coverage_at_1": Metric(
        name="coverage_at_1",
        function=selective.coverage_at_1,
        definition="Largest share of images, the most confident ones, of which at most 1 % are wrong.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        version=1,
        source="Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500",
    ),
    "coverage_at_2": Metric(
        name="coverage_at_2",
        function=selective.coverage_at_2,
        definition="Largest share of images, the most confident ones, of which at most 2 % are wrong.",
        unit="fraction",
        lower=0.0,
        upper=1.0,
        higher_is_better=True,
        version=1,
        source="Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500",
    ),
}

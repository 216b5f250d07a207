"""How much regularisation does a linear model take? Trained by scikit-learn, judged by ablate."""

from typing import Any

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from ablate import Study


def train(trial: Any, *, C: float = 1.0) -> dict[str, Any]:  # noqa: N803 (scikit-learn's name)
    """A linear model of the digits; the parameters after `trial` are the knobs."""
    images, labels = load_digits(return_X_y=True)
    images, reported, labels, truth = train_test_split(images / 16, labels, random_state=trial.seed)
    model = LogisticRegression(C=C, max_iter=300).fit(images, labels)
    return {"logits": model.decision_function(reported), "labels": truth}


study = Study(
    question="How much regularisation does it take?",
    train=train,
    factors={"C": (0.01, 0.1, 1.0)},
    baseline={"C": 1.0},
    seeds=5,
)

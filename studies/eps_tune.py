"""Which label smoothing ε is best for accuracy, and does tuning it buy anything that can be shown?

Optuna proposes values of ε between 0 and 0.5; each is trained on three seeds and judged on images held back
from training. The winner, ε = 0 and the usual ε = 0.1 are then trained anew with fresh seeds on all training
images and compared on the reported ones, which the search never sees.
Expected: the optimum is flat. Differences below a point are the rule, and "tuning bought nothing that
can be shown" is a likely and useful answer.

The re-test asks about each arm against ε = 0.1. Accuracy varies by 1.4 points from seed to seed (six runs of
seed_notebook), so that 20 seeds have a chance of 63 % to show it equivalent within 1.5 points; in small,
where it varies by 1.5 (30 runs of seed_luck), ten have 68 % within 2.5 points. Five seeds (cpu, quick) show
large effects only.

Cost: 120 trainings and a re-test of 60 on one GPU (full), 60 and 15 on Imagenette on two CPU cores (cpu: many
hours), 24 and 30 of 5 epochs at 64 px there (small: half an hour), or 36 and 15 small ones on scikit-learn's
digits (quick: a few minutes).

    python -m ablate tune studies/eps_tune.py
"""

from ablate import Profile, Range, Search, Study

study = Study(
    question="Does tuning the label smoothing ε improve accuracy over the usual ε = 0.1?",
    base={"data": "imagenette-160", "image_size": 128, "arch": "seed_cnn", "recipe": "source"},
    search=Search(
        space={"epsilon": Range(low=0.0, high=0.5, step=0.005)},
        objective="accuracy",
        anchors=({"epsilon": 0.0},),
        points=40,
        seeds=3,
        tuning_part=0.125,
    ),
    baseline={"epsilon": 0.1},
    margins={"accuracy": 0.015},
    seeds=20,
    profiles={
        "full": Profile(),
        "cpu": Profile(search={"points": 20}, seeds=5),
        "small": Profile(
            base={"image_size": 64, "epochs": 5},
            search={"points": 12, "seeds": 2},
            margins={"accuracy": 0.025},
            seeds=10,
        ),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 15, "batch_size": 32, "lr": 0.1},
            # A third of the digits' 600 training images: on fewer, accuracy would be too coarse to tune by.
            search={"points": 12, "tuning_part": 0.33},
            seeds=5,
        ),
    },
)

"""What does label smoothing do to accuracy and calibration, and how much of it is best?

Seven levels of ε over the source's network and recipe; each seed is trained once at every level. What is
asked is the trend over the levels and what the usual ε = 0.1 does, of accuracy and of calibration error
(ECE).
Expected: accuracy within a point of ε = 0 either way, confidence lower as ε grows, and calibration error
rising once ε takes confidence below accuracy.

Accuracy varies by 1.4 points from seed to seed at 128 px (six runs of seed_notebook), so that `plan` gives
full a chance of 59 % to show it equivalent within a point, and of 79 % to find a point. Five seeds (cpu,
quick) have none: they show effects of many points. In small accuracy varies by 1.5 points and ECE by 2.1 (30
runs of seed_luck), and its margins are as wide as ten seeds can confirm: a chance of 56 and 68 %.

Cost: 350 trainings on one GPU (full), 35 on Imagenette on two CPU cores (cpu: hours), 50 of 5 epochs at 64 px
there (small), or 35 small ones on scikit-learn's digits (quick: a minute or two).

    python -m ablate run studies/eps_sweep.py
"""

from ablate import Profile, Study

study = Study(
    question="What does the label smoothing ε do to accuracy and calibration?",
    base={"data": "imagenette-160", "image_size": 128, "arch": "seed_cnn", "recipe": "source"},
    factors={"epsilon": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)},
    baseline={"epsilon": 0.0},
    comparisons=("trend", {"epsilon": 0.1}),
    primary="accuracy",
    family=("accuracy", "ece"),
    margins={"accuracy": 0.01, "ece": 0.01},
    seeds=25,
    profiles={
        "full": Profile(factors={"arch": ("seed_cnn", "xresnet18")}),
        "cpu": Profile(seeds=5),
        "small": Profile(
            base={"image_size": 64, "epochs": 5},
            factors={"epsilon": (0.0, 0.05, 0.1, 0.2, 0.4)},
            margins={"accuracy": 0.026, "ece": 0.04},
            seeds=10,
        ),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 15, "batch_size": 32, "lr": 0.1}, seeds=5
        ),
    },
)

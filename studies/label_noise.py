"""Does label smoothing help when training labels are wrong?

ε under clean labels and under Imagenette's published noisy ones (25 and 50 % wrong); the reported images keep
their true labels. The interactions ask whether ε is worth more the noisier the labels are.
Expected, after Lukasik et al. 2020 (arXiv 2003.02819): a gain from ε that grows with the noise.

The arms, each against ε = 0 at its own noise, and the interactions are asked about. With accuracies that vary
by 1.4 points from seed to seed, as those of seed_notebook do, full has a chance of 55 % to show an
interaction within 2.5 points, and of 100 % to find one of 5. The few seeds of cpu and quick show large
effects only.

Cost: 180 trainings on one GPU (full), 12 at 64 px on two CPU cores (cpu: an hour), or 30 small ones on
scikit-learn's digits with labels made wrong at random (quick: a minute or two).

    python -m ablate run studies/label_noise.py
"""

from ablate import Profile, Study

study = Study(
    question="Does label smoothing help when training labels are wrong?",
    base={"data": "imagenette-160", "image_size": 128, "arch": "xresnet18", "recipe": "modern"},
    factors={"label_noise": (0.0, 0.25, 0.5), "epsilon": (0.0, 0.1, 0.3)},
    baseline={"epsilon": 0.0},
    comparisons=("arms", "interaction"),
    primary="accuracy",
    margins={"accuracy": 0.025},
    seeds=20,
    profiles={
        "full": Profile(),
        "cpu": Profile(
            base={"image_size": 64, "arch": "seed_cnn", "epochs": 5},
            factors={"label_noise": (0.0, 0.5), "epsilon": (0.0, 0.3)},
            seeds=3,
        ),
        "quick": Profile(
            base={
                "data": "digits",
                "image_size": 8,
                "arch": "seed_cnn",
                "recipe": "source",
                "epochs": 15,
                "batch_size": 32,
                "lr": 0.1,
            },
            factors={"label_noise": (0.0, 0.3), "epsilon": (0.0, 0.1, 0.3)},
            seeds=5,
        ),
    },
)

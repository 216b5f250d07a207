"""What does label smoothing do to accuracy and calibration, and how much of it is best?

Seven levels of ε over the source's network and recipe; each seed is trained once at every level.
Expected: accuracy within half a point of ε = 0 either way, confidence lower as ε grows, and calibration
error rising once ε takes confidence below accuracy.

Cost: 140 trainings on one GPU (full), 35 on Imagenette on two CPU cores (cpu: hours), 50 of 5 epochs at 64 px
there (small), or 35 small ones on scikit-learn's digits (quick: a minute or two).

    python -m ablate run studies/eps_sweep.py
"""

from ablate import Profile, Study

study = Study(
    question="What does the label smoothing ε do to accuracy and calibration?",
    base={"data": "imagenette-160", "image_size": 128, "arch": "seed_cnn", "recipe": "source"},
    factors={"epsilon": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)},
    baseline={"epsilon": 0.0},
    primary="accuracy",
    margins={"accuracy": 0.005},
    seeds=10,
    profiles={
        "full": Profile(factors={"arch": ("seed_cnn", "xresnet18")}),
        "cpu": Profile(seeds=5),
        "small": Profile(
            base={"image_size": 64, "epochs": 5}, factors={"epsilon": (0.0, 0.05, 0.1, 0.2, 0.4)}, seeds=10
        ),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 15, "batch_size": 32, "lr": 0.1}, seeds=5
        ),
    },
)

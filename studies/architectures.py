"""Does label smoothing do the same for small and large networks?

ε = 0 and ε = 0.1 under several architectures, each pair trained with the same seeds. The table of main
effects and interactions asks whether ε's effect differs between architectures, which two plots cannot.
Expected: accuracy within a point either way, confidence lower with ε for every network.

The interactions are asked about. One varies twice as much as a run, so that with accuracies that vary by 1.4
points from seed to seed (six runs of seed_notebook's network) full has a chance of 59 % to show it within 2
points. Three seeds (cpu, quick) decide hardly anything but show how it works.

Cost: 250 trainings on one GPU (full), 18 at 64 px on two CPU cores (cpu: hours), or 24 small ones on
scikit-learn's digits (quick: a few minutes).

    python -m ablate run studies/architectures.py
"""

from ablate import Profile, Study

study = Study(
    question="Does the effect of label smoothing depend on the architecture?",
    base={"data": "imagenette-160", "image_size": 128, "recipe": "modern"},
    factors={
        "arch": ("seed_cnn", "xresnet18", "xresnet34", "xresnet50", "vit_tiny"),
        "epsilon": (0.0, 0.1),
    },
    baseline={"epsilon": 0.0},
    comparisons=("interaction",),
    primary="accuracy",
    margins={"accuracy": 0.02},
    seeds=25,
    profiles={
        "full": Profile(),
        "cpu": Profile(
            base={"image_size": 64, "decode_size": 80, "epochs": 5},
            factors={"arch": ("seed_cnn", "xresnet18", "vit_tiny")},
            seeds=3,
        ),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 8, "batch_size": 32, "flip": False},
            factors={"arch": ("seed_cnn", "xresnet18", "vit_tiny", "resnet18")},
            seeds=3,
        ),
    },
)

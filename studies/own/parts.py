"""What does each part of a small recipe add to the others?"""

from ablate import Study

study = Study(
    question="What does each part of the recipe contribute?",
    base={
        "data": "digits",
        "image_size": 8,
        "epochs": 20,
        "lr": 0.1,
        "momentum": 0.9,
        "epsilon": 0.1,
        "mixup": 0.2,
        "ema": 0.9,
    },
    parts={"momentum": 0.0, "smoothing": {"epsilon": 0.0}, "mixup": 0.0, "ema": 0.0},
    seeds=5,
)

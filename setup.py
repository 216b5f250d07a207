"""What pyproject.toml cannot say: studies/ goes into the wheel as ablate/studies."""

from setuptools import find_packages, setup

studies = {"ablate.studies": "studies", "ablate.studies.own": "studies/own"}
setup(packages=[*find_packages(include=["ablate*"]), *studies], package_dir=studies)

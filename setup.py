"""Which folders are installed, and as what; all else stands in pyproject.toml."""

from setuptools import find_packages, setup

# Lie at the top of a checkout, and inside the package where it is installed: there no other `baselines` is in the way.
INSIDE = {
    "tabi_bench.baselines": "baselines",
    "tabi_bench.conf": "conf",
    "tabi_bench.paper": "results/paper",
}
setup(packages=[*find_packages(include=["tabi_bench*"]), "hydra_plugins", *INSIDE], package_dir=INSIDE)

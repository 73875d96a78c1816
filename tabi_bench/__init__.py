"""tabi-bench: multi-level (cascade) inference for BERT-like classifiers, measured.

    from tabi_bench import load

    classify = load("plan.json")
    classify("a text")

What is exported here is imported when it is asked for; inside the package, import from modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabi_bench.classifier import Classifier, Prediction, load
    from tabi_bench.config import compose_config
    from tabi_bench.experiment import run_session
    from tabi_bench.system import PlanError

__version__ = "0.1.0"
__all__ = ["Classifier", "PlanError", "Prediction", "compose_config", "load", "run_session"]
_PLACES = {
    "Classifier": "tabi_bench.classifier",
    "PlanError": "tabi_bench.system",
    "Prediction": "tabi_bench.classifier",
    "compose_config": "tabi_bench.config",
    "load": "tabi_bench.classifier",
    "run_session": "tabi_bench.experiment",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tabi_bench' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

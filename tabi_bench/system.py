"""The protocol of everything that answers queries, and the plan that it answers by.

plan    offline: sees profiled outputs and labels of the tune rows, nothing else
answer  online: one query, no label
replay  the same decisions, vectorised, on profiled outputs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from tabi_bench.engines.base import Encoding, Engine, Model, Output
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.tasks.base import Query
    from tabi_bench.zoo.base import Zoo


class PlanError(Exception):
    """A plan that cannot be made or cannot be used; the message says why and what to do."""


class Unreachable(PlanError):
    """No model reaches the target; the message names the best score and its model."""


class Infeasible(PlanError):
    """The method has no operating point that meets the target. This is a result, not a failure."""


@dataclass
class FoldPlan:
    """The operating point tuned on one set of rows, and the rows that it serves (row numbers; None: every query)."""

    tuned_on: list[int]
    serves: list[int] | None
    target: float
    point: dict[str, Any]  # plain data: the method's own hyper-parameters, models by name
    predicted: dict[str, Any] = field(default_factory=dict)  # on tune: score, latency_ms, shares, passes run ...


@dataclass
class Plan:
    """What a System needs to answer queries. Plain data: `plan.json`."""

    method: str
    task: str
    folds: list[FoldPlan]
    split_seed: int
    fingerprint: dict[str, Any]  # hashes of models, data, tokenizers; engine
    options: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Reads a plan.json. Raises PlanError for what is none."""
        try:
            raw = json.loads(Path(path).expanduser().read_text())
            return cls(**{**raw, "folds": [FoldPlan(**fold) for fold in raw["folds"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise PlanError(f"{path} is no plan, or a damaged one ({type(error).__name__}: {error})") from None

    def fold_of(self, rows: np.ndarray) -> np.ndarray:
        """(N,) index of the fold that serves each row."""
        fold = np.full(len(rows), -1)
        for k, plan in enumerate(self.folds):
            fold[np.isin(rows, plan.serves) if plan.serves is not None else slice(None)] = k
        if (fold < 0).any():
            raise PlanError(f"no fold of this plan serves row {int(rows[fold < 0][0])}; it was made for other data")
        return fold


@dataclass(slots=True)
class Answer:
    """label: index of the label, or the score for regression; level: 0-based level that returned it."""

    label: float
    level: int
    words: int = 0  # words of the query; 0 where nobody counted
    words_kept: int = 0  # of those, read by the last level
    failures: int = 0  # levels that raised or returned a non-finite output
    truncated: bool = False
    stages_ns: dict[str, int] = field(default_factory=dict)  # tokenise, level1, level2, ..., prune, decide


def ask(model: Model, query: Query) -> tuple[Encoding, Output, dict[str, int]]:
    """One model on the text as it is: what it read, what it says, and nanoseconds of tokenising and of the model."""
    start = perf_counter_ns()
    encoding = model.encode(query.texts)
    encoded = perf_counter_ns()
    output = model.forward(encoding)
    return encoding, output, {"tokenise": encoded - start, "level1": perf_counter_ns() - encoded}


@dataclass
class Outcomes:
    """Replayed answers of N rows."""

    rows: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) int64 or float64
    levels: np.ndarray  # (N,) 0-based
    latency_ms: np.ndarray  # (N,) predicted from the profile
    words_kept_share: np.ndarray  # (N,) 1.0 where nothing was pruned
    borderline: np.ndarray  # (N,) bool: within 1e-3 of a threshold (confidence, importance) or of another label


class System(Protocol):
    """Registered by name in `tabi_bench.registry`."""

    name: str

    @classmethod
    def plan(cls, profile: Profile, target: Any, options: Any) -> FoldPlan:
        """Chooses the operating point on the rows of `profile` (already the tune rows). Raises Unreachable, Infeasible.

        `serves` is filled in by the caller. `target` is an evaluation.targets.Target of these rows.
        """
        ...

    @classmethod
    def deploy(cls, plan: Plan, zoo: Zoo, engine: Engine, options: Any) -> System:
        """Loads the models that the plan names and returns the system, ready to answer."""
        ...

    def answer(self, query: Query) -> Answer: ...

    @classmethod
    def replay(cls, plan: Plan, profile: Profile, rows: np.ndarray) -> Outcomes: ...

    def describe(self) -> Mapping[str, Any]:
        """For the record: what is particular to this system (e.g. Cocktail's three latencies)."""
        ...

"""The protocol of everything that answers queries, and the plan that it answers by.

plan     offline: sees profiled outputs and labels of the tune rows, nothing else
run      online: one stage on a batch of items; a query carries no label
replay   the same decisions, vectorised, on profiled outputs

A System holds one operating point and knows nothing of folds; `planning.folds` drives those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from tabi_bench.device import Begun

if TYPE_CHECKING:
    import pandas as pd

    from tabi_bench.planning.targets import Target
    from tabi_bench.profiling.lab import Lab
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.records.record import Record
    from tabi_bench.tasks.base import Query


class PlanError(Exception):
    """A plan that cannot be made or cannot be used; the message says why and what to do."""


class Unreachable(PlanError):
    """No model reaches the target; the message names the best score and its model."""


class Infeasible(PlanError):
    """The method has no operating point that meets the target. This is a result, not a failure."""


class NoAnswer(RuntimeError):
    """Every model that was asked failed on a query."""


# --- the plan ---------------------------------------------------------------------------------------------------------


class Predicted(TypedDict, total=False):
    """What an operating point yields on the rows that it was tuned on. Every method gives the first three."""

    score: float
    latency_ms: float  # mean
    shares: list[float]  # of the queries, by the level that returns them
    passes: dict[str, int]  # of large models on pruned text: {"run", "exhaustive"}
    verified: dict[str, float]  # against an exhaustive search: {"exhaustive_ms", "regret_pct", "passes_share"}
    pairwise: dict[str, Any]  # beside three levels: the best of fewer (score, latency_ms, shares, point)
    certificate: dict[str, Any]  # planning.certify
    serial_ms: float  # of an ensemble's members, one after the other
    layers_saved: float  # share of the layers that early exit leaves out
    full_ms: float  # mean latency of the whole model that is left early


@dataclass
class FoldPlan:
    """The operating point tuned on one set of rows, and the rows that it serves (row numbers; None: every query)."""

    tuned_on: list[int]
    serves: list[int] | None
    target: float
    point: dict[str, Any]  # plain data: the method's own hyper-parameters, models by name
    predicted: Predicted = field(default_factory=Predicted)


class ModelSource(TypedDict, total=False):
    """Where a model lies, one of the first three, and how it is read."""

    package: str  # below the folder of this package: shipped models
    beside: str  # below the folder of plan.json
    folder: str
    label_order: list[int] | None
    scale: list[float] | None
    max_length: int
    int8: bool  # run in int8, beside others that are not: `ModelSpec.in_int8` of what lies there


class Deployment(TypedDict, total=False):
    """What a program of one's own needs beside the operating point; written by `tabi_bench.export`."""

    note: str
    metric: str
    columns: list[str]  # names of the texts that a query has
    models: dict[str, ModelSource]
    engine: dict[str, Any]  # its settings
    confidences: list[float]  # 101 quantiles of what the first level compares with its threshold, on the tuning rows
    usd_per_hour: float


@dataclass
class Plan:
    """What a method decided offline for one task. Plain data: `plan.json` (read by `planning.plan_file`)."""

    method: str
    task: str
    folds: list[FoldPlan]
    split_seed: int
    fingerprint: dict[str, Any]  # hashes of models, data, tokenizers; engine
    options: dict[str, Any] = field(default_factory=dict)
    deployment: Deployment = field(default_factory=Deployment)  # of an exported plan; empty in a session's

    def fold_of(self, rows: np.ndarray) -> np.ndarray:
        """(N,) index of the fold that serves each row. Raises PlanError for a row that none serves."""
        fold = np.full(len(rows), -1)
        for k, plan in enumerate(self.folds):
            fold[np.isin(rows, plan.serves) if plan.serves is not None else slice(None)] = k
        if (fold < 0).any():
            raise PlanError(f"no fold of this plan serves row {int(rows[fold < 0][0])}; it was made for other data")
        return fold


# --- answering --------------------------------------------------------------------------------------------------------


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


class Item:
    """A query on its way: the stage that it waits for, what the stages before it read, and its answer so far.

    read: one entry per stage that gave an output, whatever the system keeps.
    """

    __slots__ = ("encodings", "query", "read", "so_far", "stage")

    def __init__(self, query: Query) -> None:
        self.query, self.stage = query, 0
        self.read: list[Any] = []
        self.encodings: dict[Any, Any] = {}  # of its texts, by who made them, or what a stage reads, by its number
        self.so_far = Answer(float("nan"), -1)

    def encoding(self, encode: Callable[[Sequence[str]], Any]) -> Any:
        """Its texts, tokenised by a model's `encode`: at most once, by whichever model or hand comes first."""
        encoding = self.encodings.get(encode)
        if encoding is None:
            encoding = self.encodings[encode] = encode(self.query.texts)
        return encoding

    def answer(self, label: float, level: int) -> Answer:
        """The Answer that `level` returns."""
        answer = self.so_far
        answer.label, answer.level = label, level
        return answer


class Clock:
    """Splits the time of one stage into named parts, in nanoseconds."""

    __slots__ = ("last", "ns")

    def __init__(self, ns: dict[str, int] | None = None) -> None:
        self.ns: dict[str, int] = {} if ns is None else ns
        self.last = perf_counter_ns()

    def mark(self, part: str) -> None:
        """Books the time since the last mark under `part`."""
        now = perf_counter_ns()
        self.ns[part] = self.ns.get(part, 0) + now - self.last
        self.last = now

    def share(self, items: Sequence[Item]) -> None:
        """Books an equal part of the batch's time to each of its items."""
        shares = {part: ns // len(items) for part, ns in self.ns.items()}
        for item in items:
            stages = item.so_far.stages_ns
            stages.update({part: stages.get(part, 0) + ns for part, ns in shares.items()} if stages else shares)


@dataclass
class Outcomes:
    """Replayed answers of N rows."""

    rows: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) int64 or float64
    levels: np.ndarray  # (N,) 0-based
    latency_ms: np.ndarray  # (N,) predicted from the profile
    words_kept_share: np.ndarray  # (N,) 1.0 where nothing was pruned
    borderline: np.ndarray  # (N,) bool: within 1e-3 of a threshold (confidence, importance) or of another label

    @classmethod
    def of_full_text(cls, rows: np.ndarray, labels: np.ndarray, latency_ms: np.ndarray, **changes: Any) -> Outcomes:
        """Outcomes of one level on the full text: (N,) labels and milliseconds; `changes`: other fields."""
        n = len(rows)
        fields = {"levels": np.zeros(n, np.int64), "words_kept_share": np.ones(n), "borderline": np.zeros(n, bool)}
        return cls(rows=np.asarray(rows), labels=labels, latency_ms=latency_ms, **(fields | changes))


class System(ABC):
    """One method at one operating point. Registered by name in `tabi_bench.registry`; the hooks have defaults."""

    name: ClassVar[str]
    alone: ClassVar[bool] = False  # whether it shares no model with the other systems of a session
    searched: ClassVar[bool] = False  # whether its plans can be verified and certified: those of the plan search

    # --- offline ---

    @classmethod
    def beside(cls, reference: type[System]) -> type[System]:
        """The class that plans and serves in a session with this reference."""
        return cls

    @classmethod
    def check(cls, options: Any, models: list[str]) -> None:
        """Refuses, before any work, options that do not fit the zoo's models (names, the smallest first)."""

    @classmethod
    def check_point(cls, point: dict[str, Any], models: list[str]) -> None:
        """Refuses an operating point from a file that cannot be served with these models. Raises PlanError."""

    @classmethod
    def prepare(cls, lab: Lab, profile: Profile, options: Any) -> Profile:
        """The profile with what this method alone measures or trains."""
        return profile

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: Any) -> FoldPlan:
        """Chooses the operating point on the rows of `profile`, the tune rows. Raises Unreachable, Infeasible.

        `serves` is filled in by the caller.
        """
        raise NotImplementedError(f"{cls.__name__} has no planner")

    @classmethod
    def tell(cls, plan: Plan, profile: Profile, plans: Mapping[str, Plan]) -> Plan:
        """The plan once all plans of the session stand; `profile` is of all rows, labels included.

        Only a control that is to know the labels beforehand changes anything here.
        """
        return plan

    # --- online ---

    def __init_subclass__(cls) -> None:
        """A class that changes `run` alone is begun by its own `run`, not as the class that it is made from."""
        super().__init_subclass__()
        if "run" in vars(cls) and "begin" not in vars(cls):
            cls.begin = System.begin  # type: ignore[method-assign]

    stages: int = 1
    encoders: Sequence[Callable] = ()  # whose encodings the stages read

    @classmethod
    @abstractmethod
    def deploy(cls, point: dict[str, Any], lab: Lab, options: Any) -> System:
        """Loads the models that the point names and returns the system, ready to answer."""

    @abstractmethod
    def run(self, stage: int, items: list[Item]) -> list[Answer | Item]:
        """Runs one stage on a batch: per item its Answer, or the item itself with its next `stage` set."""

    def begin(self, stage: int, items: list[Item]) -> Begun[list[Answer | Item]]:
        """`run` without waiting for the device, where a system can: the host is free for other batches meanwhile.

        Its `result` takes the time, in nanoseconds, until which the device was at batches before: the clocks of the
        answers start there. At most two batches may be on their way, and end in order.
        """
        return Begun.done(self.run(stage, items))

    def read_ahead(self, stage: int, items: list[Item]) -> None:
        """Tokenises what items that wait for this stage will be asked for: the host does it while the device works."""
        for item in items:
            for encode in self.encoders:
                item.encoding(encode)

    def answer(self, query: Query) -> Answer:
        """All stages that one query needs, at batch one. Raises NoAnswer."""
        result = self.run(0, [Item(query)])[0]
        while isinstance(result, Item):
            result = self.run(result.stage, [result])[0]
        return result

    # --- afterwards ---

    @classmethod
    @abstractmethod
    def replay(cls, point: dict[str, Any], profile: Profile, rows: np.ndarray) -> Outcomes:
        """What `answer` says on validation rows (N,) of `profile`, by the same rules, from profiled outputs."""

    @classmethod
    def describe(cls, plan: Plan, trace: pd.DataFrame) -> dict[str, Any]:
        """For the record: what is particular to this method, from its plan and what it served."""
        return {"folds": [fold.point for fold in plan.folds]}

    @classmethod
    def conclude(cls, own: Record, session: Mapping[str, Record]) -> None:
        """Adds to `own.details["system"]` what needs the session's other records; "remarks": sentences for people."""

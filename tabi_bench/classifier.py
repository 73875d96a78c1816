"""An exported plan in a program of one's own: `classify = load("plan.json"); classify("a text")`."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from tabi_bench.cascade.point import Point
from tabi_bench.cascade.system import Cascade
from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.base import Engine
from tabi_bench.planning.plan_file import check_models, load_plan
from tabi_bench.system import Item, ModelSource, Plan, PlanError
from tabi_bench.tasks.base import Query
from tabi_bench.zoo.base import INT8, ModelSpec
from tabi_bench.zoo.loading import spec_of

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parent
Text = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one query.

    label: its name, None for regression. score: regression only. confidence: calibrated probability of the label; for a
    score, the estimated probability that the large model's lies within 0.5, None where the large model answered.
    level: that answered, 1 being the first.
    """

    label: str | None = None
    score: float | None = field(default=None, kw_only=True)
    confidence: float | None = None
    level: int = 1


class Classifier:
    """Answers texts by one operating point. Not for several threads at a time: models keep buffers."""

    def __init__(self, plan: Plan, point: Point, engine: Engine, specs: dict[str, ModelSpec]) -> None:
        self.plan, self.engine, self._specs = plan, engine, specs
        self.system = self.at(point)
        self.labels: list[str] = plan.fingerprint["labels"]
        self.columns = plan.deployment["columns"]

    @overload
    def __call__(self, texts: Text, batch: int = 1) -> Prediction: ...
    @overload
    def __call__(self, texts: list[Text] | list[str], batch: int = 1) -> list[Prediction]: ...
    def __call__(self, texts: Text | Sequence[Text], batch: int = 1) -> Prediction | list[Prediction]:
        """One text (a pair: a tuple of two), or a list of them.

        batch: queries that a model reads at a time. Raises ValueError for what is no text, NoAnswer where every model
        failed on a query.
        """
        if isinstance(texts, (str, tuple)):
            return self._predict(self.queries([texts]), 1)[0]
        return self._predict(self.queries(texts), batch)

    def queries(self, texts: Sequence[Text]) -> list[Query]:
        """Texts as queries, whose id is a hash of their text. Raises ValueError by the position of a wrong one."""
        wanted, queries = len(self.columns), []
        for position, given in enumerate(texts):
            parts = (given,) if isinstance(given, str) else tuple(given)
            if len(parts) != wanted or not all(isinstance(part, str) for part in parts):
                raise ValueError(
                    f"query {position}: this plan reads {wanted} text(s) ({', '.join(self.columns)}) in a tuple or, if "
                    f"it is one, a string; given was {str(given)[:60]!r}"
                )
            queries.append(Query(zlib.crc32("\x1f".join(parts).encode("utf-8", "surrogatepass")), parts))
        return queries

    def at(self, point: Point) -> Cascade:
        """The same models at another operating point."""
        with without_bars():
            return Cascade.of(point, lambda name, **options: self.engine.load(self._specs[name], **options))

    def close(self) -> None:
        """Frees the models."""
        self.engine.close()

    def _predict(self, queries: list[Query], batch: int) -> list[Prediction]:
        items = [Item(query) for query in queries]
        waiting = items
        for stage in range(self.system.stages):
            chunks = [waiting[first : first + batch] for first in range(0, len(waiting), batch)]
            results = [result for chunk in chunks for result in self.system.run(stage, chunk)]
            waiting = [result for result in results if isinstance(result, Item)]
        return [self.prediction(item) for item in items]

    def prediction(self, item: Item) -> Prediction:
        answer, sure = item.so_far, self.system.confidence(item.read)
        confidence = None if math.isnan(sure) else sure
        if not self.labels:
            return Prediction(score=float(answer.label), confidence=confidence, level=answer.level + 1)
        return Prediction(self.labels[int(answer.label)], confidence=confidence, level=answer.level + 1)


def load(
    plan: str | Path,
    engine: str | None = None,
    device: str = "auto",
    models: Mapping[str, str | Path] | None = None,
) -> Classifier:
    """A classifier that answers by an exported plan (`python -m tabi_bench.export`): a plan.json or its folder.

    engine, device: those that the plan was tuned for, unless another is named; the numbers are the same up to rounding,
    the speed is not. models: folders by model name, where they no longer lie where the plan says. Raises PlanError with
    the reason for whatever does not match the plan.
    """
    path = Path(plan).expanduser()
    path = path / "plan.json" if path.is_dir() else path
    made = load_plan(path)
    if not made.deployment or len(made.folds) != 1 or made.folds[0].serves is not None:
        raise PlanError(
            f"{path} is a session's plan: each half of its rows is served by what was tuned on the other. Make one for "
            f"your own queries: python -m tabi_bench.export {path.parent} DIR"
        )
    point = Point.checked(made.folds[0].point, list(made.deployment["models"]))
    specs = _specs(made, path, point, models or {})
    try:
        runs_on = make_engine(_engine(made, engine, device))
    except (ValueError, ImportError) as error:
        raise PlanError(f"{path}: {error}") from None
    return Classifier(made, point, runs_on, specs)


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers, which reads weights in no time."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _specs(plan: Plan, path: Path, point: Point, given: Mapping[str, str | Path]) -> dict[str, ModelSpec]:
    """The models of the point, of whose contents the plan keeps hashes."""
    unknown = sorted(set(given) - set(point.models))
    if unknown:
        raise PlanError(f"models={unknown}: {path} asks {', '.join(point.models)}")
    specs = {}
    for name in point.models:
        source = plan.deployment["models"][name]
        folder = Path(given[name]).expanduser() if name in given else folder_of(source, path)
        order, scale = source["label_order"], source["scale"]
        try:
            parts = tuple(order) if order else None, (scale[0], scale[1]) if scale else None
            in_int8 = source.get("int8", False)
            spec = spec_of(folder, name.removesuffix(INT8) if in_int8 else name, source["max_length"], *parts)
            specs[name] = spec.in_int8 if in_int8 else spec
        except (OSError, ValueError) as error:
            raise PlanError(f"{path}: model {name}: {error}; give its folder as models={{{name!r}: DIR}}") from None
    check_models(plan, path, specs.values())
    return specs


def folder_of(source: ModelSource, path: Path) -> Path:
    """Where the plan at `path` says that a model lies."""
    if "package" in source:
        return PACKAGE / source["package"]
    return path.parent / source["beside"] if "beside" in source else Path(source["folder"])


def _engine(plan: Plan, engine: str | None, device: str) -> Any:
    """The settings of the engine. Raises PlanError where "auto" finds no such device as the plan was tuned for."""
    import torch

    made_for = plan.fingerprint["engine"]
    if device == "auto":
        if made_for["device"] == "cuda" and not torch.cuda.is_available():
            raise PlanError("the plan was tuned on a GPU, and here is none; device='cpu' runs it anyway, more slowly")
        device = "cuda:0" if made_for["device"] == "cuda" else "cpu"
    changed = {made_for["name"]: engine or made_for["name"], made_for["device"]: device.split(":")[0]}
    for before, now in changed.items():
        if before != now:
            log.warning("the plan was tuned for %s and runs on %s: its latency is another one", before, now)
    own = {} if engine not in (None, made_for["name"]) else plan.deployment["engine"]
    return read_file("engine", engine or made_for["name"], **own, device=device, dtype=made_for["dtype"])

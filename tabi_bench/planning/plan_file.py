"""`plan.json`: written, read, checked as a whole, and refused where it was made for something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabi_bench.cache import write_atomically
from tabi_bench.cascade.point import Point
from tabi_bench.system import FoldPlan, Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine
    from tabi_bench.tasks.base import Task
    from tabi_bench.zoo.base import ModelSpec, Zoo

SCHEMA_VERSION = 2
AGAIN = "leave plan=null to make a new one"


def fingerprint(task: Task, zoo: Zoo, engine: Engine) -> dict[str, Any]:
    """What a plan is made for: hashes of data, models (with label order and length) and tokenizers; labels; engine."""
    return {
        "data": task.content_hash,
        "labels": list(task.config.labels),
        **_models(zoo.models),
        "engine": {"name": engine.name, "dtype": engine.dtype, "device": engine.device.split(":")[0]},
    }


def _models(specs: Iterable[ModelSpec]) -> dict[str, dict[str, str]]:
    models, tokenizers = {}, {}
    for spec in specs:
        models[spec.name] = _digest(spec.content_hash, spec.label_order, spec.scale, spec.max_length)
        tokenizers[spec.name] = _digest((spec.path / "tokenizer.json").read_bytes())
    return {"models": models, "tokenizers": tokenizers}


def check_models(plan: Plan, path: Path, specs: Iterable[ModelSpec]) -> None:
    """Refuses models that are not those of the plan. Raises PlanError with the folder."""
    for spec in specs:
        for kind, digests in _models([spec]).items():
            if plan.fingerprint.get(kind, {}).get(spec.name) != digests[spec.name]:
                raise PlanError(
                    f"{path} was made with other {kind} than lie in {spec.path}: the contents differ, so its "
                    f"thresholds would not hold; give the right folder, as models={{{spec.name!r}: DIR}}"
                )


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\x1f".join(map(repr, parts)).encode()).hexdigest()[:16]


def save_plan(plan: Plan, path: Path) -> None:
    """Writes plan.json at once."""
    write_atomically(path, json.dumps({"schema_version": SCHEMA_VERSION, **asdict(plan)}, indent=1))


def load_plan(path: Path) -> Plan:
    """Reads a plan.json, of this schema or the one before. Raises PlanError for what is none or is damaged."""
    path = Path(path).expanduser()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw.pop("schema_version", 1)
        if version > SCHEMA_VERSION:
            raise PlanError(f"{path} was written by a newer version of tabi-bench (schema {version}); update this one")
        plan = Plan(**{**raw, "folds": [FoldPlan(**fold) for fold in raw["folds"]]})
        for fold in plan.folds:
            if set(fold.point) == {"model"}:  # how schema 1 wrote one model alone
                fold.point = Point.of_one(fold.point["model"]).plain()
        return plan
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PlanError(f"{path} is no plan, or a damaged one ({type(error).__name__}: {error})") from None


def check_plan(plan: Plan, path: Path, current: Mapping[str, Any], rows: int) -> None:
    """Refuses a plan whose folds contradict each other, the data (so many validation rows) or `current`.

    current: the `fingerprint` here, with "method" and "task". Models that the zoo has beyond the plan's do no harm.
    Raises PlanError with the reason.
    """
    for what, made_for in (("method", plan.method), ("task", plan.task)):
        if made_for != current[what]:
            raise PlanError(f"{path} was made for {what} {made_for!r}, not {current[what]!r}; {AGAIN}")
    missing = [key for key in ("data", "models", "tokenizers", "engine") if not plan.fingerprint.get(key)]
    if missing:
        raise PlanError(f"{path} does not say what it was made for ({', '.join(missing)}); {AGAIN}")
    for key, before, now in _differences(plan.fingerprint, current):
        raise PlanError(
            f"{path} was made for other {key.split('.')[0]}: {key} was {before}, is {now or 'missing'}. Its thresholds "
            f"would not hold here; {AGAIN}"
        )
    _check_folds(plan, path, rows)


def check_options(plan: Plan, path: Path, options: Mapping[str, Any]) -> None:
    """Refuses settings of the method that are not those the plan was made with. Raises PlanError."""
    for key, value in options.items():
        if key in plan.options and plan.options[key] != value:
            raise PlanError(
                f"{path} was made with {key}={plan.options[key]}, not {value}: a plan decides that; leave the setting "
                f"out, or {AGAIN}"
            )


def _check_folds(plan: Plan, path: Path, rows: int) -> None:
    served: set[int] = set()
    for number, fold in enumerate(plan.folds, start=1):
        where = f"{path}, fold {number}"
        try:
            serves, tuned = set(map(int, fold.serves or ())), set(map(int, fold.tuned_on))
        except (TypeError, ValueError):
            raise PlanError(f"{where}: `serves` and `tuned_on` are lists of row numbers; {AGAIN}") from None
        if fold.serves is not None and serves & tuned:
            raise PlanError(f"{where} serves rows that it was tuned on ({len(serves & tuned)}); {AGAIN}")
        if serves & served:
            raise PlanError(f"{where} serves {len(serves & served)} rows that another fold serves too; {AGAIN}")
        unknown = sorted(row for row in serves | tuned if not 0 <= row < rows)
        if unknown:
            raise PlanError(f"{where} names row {unknown[0]}, but there are {rows} validation rows; {AGAIN}")
        served |= serves
    if not plan.folds or (all(fold.serves is not None for fold in plan.folds) and len(served) < rows):
        raise PlanError(f"{path} serves {len(served)} of {rows} validation rows; {AGAIN}")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, then, now) of every leaf of `before` that `now` does not repeat."""
    different = []
    for key, value in before.items():
        other = now.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            different += _differences(value, other, f"{path}{key}.")
        elif other != value:
            different.append((path + key, value, other))
    return different

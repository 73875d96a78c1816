"""`plan.json`: written, read, checked as a whole, and refused where it was made for something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tabi_bench.cache import write_atomically
from tabi_bench.cascade.point import Point
from tabi_bench.config import MethodConfig
from tabi_bench.config.fields import ConfigError, check_bounds
from tabi_bench.system import FoldPlan, Plan, PlanError, System
from tabi_bench.tasks.base import Task

if TYPE_CHECKING:  # a sweep's progress reads plans, and starts without torch
    from tabi_bench.engines.base import Engine
    from tabi_bench.profiling.lab import Lab
    from tabi_bench.zoo.base import ModelSpec, Zoo

SCHEMA_VERSION = 2
AGAIN = "leave plan=null to make a new one"
PLAN = (("method", str), ("task", str), ("split_seed", int), ("fingerprint", dict), ("options", dict))
FOLD = (("tuned_on", list), ("serves", list | None), ("target", int | float), ("point", dict), ("predicted", dict))
T = TypeVar("T", bound="MethodConfig")


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
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        version = raw.pop("schema_version", 1)
        if version > SCHEMA_VERSION:
            raise PlanError(f"{path} was written by a newer version of tabi-bench (schema {version}); update this one")
        plan = Plan(**{**raw, "folds": [FoldPlan(**fold) for fold in raw["folds"]]})
        _check_types(plan)
        for fold in plan.folds:
            if set(fold.point) == {"model"}:  # how schema 1 wrote one model alone
                fold.point = Point.of_one(fold.point["model"]).plain()
        return plan
    except PermissionError:
        raise PlanError(f"{path} cannot be read: no right to") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PlanError(f"{path} is no plan, or a damaged one ({type(error).__name__}: {error})") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_types(plan: Plan) -> None:
    """Raises TypeError for a field that does not hold what `Plan` and `FoldPlan` say."""
    for owner, key, kind in [(plan, *row) for row in PLAN] + [(f, *row) for f in plan.folds for row in FOLD]:
        value = getattr(owner, key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{key} is {value!r:.40}")
    if not plan.folds:
        raise TypeError("it has no folds")
    for fold in plan.folds:
        for rows in (fold.tuned_on, fold.serves or []):
            if not all(type(row) is int for row in rows) or len(set(rows)) < len(rows):
                raise TypeError("tuned_on and serves are lists of different row numbers")


def given_plan(path: Path, lab: Lab, system: type[System], options: MethodConfig) -> tuple[Plan, MethodConfig]:
    """A saved plan for a session of this method, and the options that it was made with. Raises PlanError."""
    plan = load_plan(path)
    check_plan(plan, path, lab, system, options)
    return plan, options_of(plan, path, options)


def check_plan(plan: Plan, path: Path, lab: Lab, system: type[System], options: MethodConfig) -> None:
    """Refuses, before any work, a plan that was not made for this method, data, models and engine, or is not whole.

    Models that the zoo has beyond the plan's do no harm. Raises PlanError with the reason.
    """
    for what, made_for, now in (("method", plan.method, options.name), ("task", plan.task, lab.task.name)):
        if made_for != now:
            raise PlanError(f"{path} was made for {what} {made_for!r}, not {now!r}; {AGAIN}")
    check_made_for(plan, path, fingerprint(lab.task, lab.zoo, lab.engine))
    check_folds(plan, path, len(lab.task.queries))
    for number, fold in enumerate(plan.folds, start=1):
        try:
            system.check_point(fold.point, lab.zoo.names)
        except PlanError as error:
            raise PlanError(f"{path}, fold {number}: {error}; {AGAIN}") from None


def check_made_for(plan: Plan, path: Path, current: Mapping[str, Any]) -> None:
    """Refuses a plan whose fingerprint is not whole, or not the `current` one. Raises PlanError."""
    missing = [key for key in ("data", "models", "tokenizers", "engine") if not plan.fingerprint.get(key)]
    if missing:
        raise PlanError(f"{path} does not say what it was made for ({', '.join(missing)}); {AGAIN}")
    for key, before, now in _differences(plan.fingerprint, current):
        raise PlanError(
            f"{path} was made for other {key.split('.')[0]}: {key} was {before}, is {now or 'missing'}. Its thresholds "
            f"would not hold here; {AGAIN}"
        )
    used = models_in(plan, current["models"])
    unknown = [name for name in sorted(used) for key in ("models", "tokenizers") if name not in plan.fingerprint[key]]
    if unknown:
        raise PlanError(f"{path} does not say which {unknown[0]} it was made for; {AGAIN}")


def check_folds(plan: Plan, path: Path, rows: int) -> None:
    """Refuses folds that contradict each other or the data, of so many validation rows. Raises PlanError."""
    served: set[int] = set()
    for number, fold in enumerate(plan.folds, start=1):
        where = f"{path}, fold {number},"
        serves, tuned = set(range(rows) if fold.serves is None else fold.serves), set(fold.tuned_on)
        unknown = sorted(row for row in serves | tuned if not 0 <= row < rows)
        if unknown:
            raise PlanError(f"{where} names row {unknown[0]}, but there are {rows} validation rows; {AGAIN}")
        if not tuned:
            raise PlanError(f"{where} does not say which rows it was tuned on; {AGAIN}")
        if serves & tuned:
            raise PlanError(f"{where} serves {len(serves & tuned)} rows that it was tuned on; {AGAIN}")
        if serves & served:
            raise PlanError(f"{where} serves {len(serves & served)} rows that another fold serves too; {AGAIN}")
        served |= serves
    if len(served) < rows:
        raise PlanError(f"{path} serves {len(served)} of {rows} validation rows; {AGAIN}")


def options_of(plan: Plan, path: Path, options: T) -> T:
    """The options that the plan was made with, in place of `options`, which its operating points do not follow.

    Raises PlanError for options that cannot have been.
    """
    known = {f.name for f in fields(options)} - {"name", "code", *options.read_when_served}
    made_with = {key: value for key, value in plan.options.items() if key in known}
    try:
        merged = cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(options), made_with)))
        check_bounds(merged, "options.")
    except (OmegaConfBaseException, ConfigError) as error:
        raise PlanError(f"{path} is a damaged plan ({str(error).splitlines()[0]}); {AGAIN}") from None
    return merged


def models_in(plan: Plan, names: Iterable[str]) -> set[str]:
    """Those of the models `names` that the plan's operating points use."""
    return {text for fold in plan.folds for text in texts_of(fold.point)} & set(names)


def texts_of(plain: Any) -> Iterator[str]:
    """Every text in plain data: names of models among them."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for inner in plain.values() if isinstance(plain, dict) else plain:
            yield from texts_of(inner)


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

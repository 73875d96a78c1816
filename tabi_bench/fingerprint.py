"""What a plan was made for, and the check that it fits what it is loaded for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tabi_bench.system import Plan, PlanError

if TYPE_CHECKING:
    from tabi_bench.engines.base import Engine
    from tabi_bench.tasks.base import Task
    from tabi_bench.zoo.base import Zoo


def fingerprint(task: Task, zoo: Zoo, engine: Engine) -> dict[str, Any]:
    """Hashes of data, models (with label order and length) and tokenizers; the engine."""
    return {
        "data": task.content_hash,
        "models": {m.name: _digest(m.content_hash, m.label_order, m.scale, m.max_length) for m in zoo.models},
        "tokenizers": {m.name: _digest((m.path / "tokenizer.json").read_bytes()) for m in zoo.models},
        "engine": {"name": engine.name, "dtype": engine.dtype, "device": engine.device.split(":")[0]},
    }


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\x1f".join(map(repr, parts)).encode()).hexdigest()[:16]


def check_plan(plan: Plan, task: str, method: str, current: dict[str, Any]) -> None:
    """Raises PlanError, with the reason, if `plan` was made for another method, task, or fingerprint than `current`.

    Models that the zoo has beyond those known to the plan do no harm.
    """
    for what, made_for, now in (("method", plan.method, method), ("task", plan.task, task)):
        if made_for != now:
            raise PlanError(f"this plan was made for {what} {made_for!r}, not {now!r}; make a new one with plan=null")
    for key, before, now in _differences(plan.fingerprint, current):
        raise PlanError(
            f"this plan was made for other {key.split('.')[0]}: {key} was {before}, is {now or 'missing'}. Its "
            "thresholds would not hold here; leave plan=null to make a new one"
        )


def _differences(before: dict, now: dict, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, then, now) of every leaf of `before` that `now` does not repeat."""
    found = []
    for key, value in before.items():
        other = now.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{path}{key}.")
        elif other != value:
            found.append((path + key, value, other))
    return found

"""What the fields of a schema may hold: bounds and choices beside each field, and their check."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabi_bench.config.session import Config

Rule = tuple[Callable[[Any], object], str]  # what a value must fulfil, and what is said of one that does not
Limits = dict[str, Any]  # metadata of a dataclass field: "rules", in order


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the setting, what it was, and what it may be."""


@dataclass
class Choice:
    """Base of all that a group of `conf/` offers. `code` is what runs, as module:attribute."""

    name: str
    code: str

    def check(self, config: Config, path: str) -> None:
        """Raises ConfigError for what cannot be used together; `path` is where the user set it."""

    def unread(self, config: Config) -> dict[str, str]:
        """Settings that this choice does not read, and why."""
        return {}


def among(*choices: Any) -> Limits:
    """A field, or a list of such, that is one of these."""
    reason = f"choose one of {', '.join(map(str, choices))}"
    return {"choices": choices, "rules": [(lambda value: value in choices, reason)]}


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Limits:
    """A field, or a list of such, within these bounds; every number must be finite."""
    at_least: Rule = (lambda value: value >= least, f"at least {least}")
    at_most: Rule = (lambda value: value <= most, f"at most {most}")
    return {"rules": [at_least, at_most, (lambda value: value > above, f"above {above}")]}


def share(text: str = "a share between 0 and 1, as 0.01 for 1 %", zero: bool = False, one: bool = False) -> Limits:
    """A fraction in (0, 1), with the ends where they are allowed; `text` says so to the user."""
    ends = [0] * zero + [1] * one
    return {"rules": [(lambda value: 0 < value < 1 or value in ends, text)]}


def text(pattern: str, meaning: str) -> Limits:
    """A field, or a list of such, that matches a regular expression; `meaning` says so to the user."""
    return {"rules": [(lambda value: re.fullmatch(pattern, value), meaning)]}


def settings(node: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, value, field) of every leaf of a dataclass, without parts that are set elsewhere."""
    for one in fields(node):
        value = getattr(node, one.name)
        if "elsewhere" in one.metadata:
            continue
        if is_dataclass(value):
            yield from settings(value, f"{path}{one.name}.")
        else:
            yield path + one.name, value, one


def check_bounds(node: Any, path: str = "") -> None:
    """Raises ConfigError for the first setting out of its bounds."""
    for name, value, one in settings(node, path):
        for member in value if isinstance(value, list) else [value]:
            if member is not None and (reason := _refusal(member, one.metadata)):
                raise ConfigError(f"{name}={member!r}: {reason}")


def _refusal(value: Any, limits: Any) -> str:
    """Why a value is out of bounds; empty if it is not."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number is needed"
    return next((reason for allows, reason in limits.get("rules", ()) if not allows(value)), "")

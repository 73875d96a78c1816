"""The JSON schema of record.json, made from the type hints of `record`: `python -m tabi_bench.records.schema FILE`."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from tabi_bench.records.record import SCHEMA_VERSION, Record

PRIMITIVES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
RESULTS = ("target", "accuracy", "latency_ms", "reference", "cost")  # whole in a record whose status is ok


def record_schema() -> dict[str, Any]:
    """The schema as plain data. A record of another status than ok may leave its results empty."""
    hints = get_type_hints(Record)
    whole: dict[str, Any] = {key: {"required": sorted(get_type_hints(hints[key]))} for key in RESULTS}
    whole["outcome"] = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"record.json of tabi-bench, schema_version {SCHEMA_VERSION}",
        **schema_of(Record),
        "if": {"properties": {"status": {"const": "ok"}}},
        "then": {"properties": whole},
    }


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of a type hint: primitives, Any, Literal, unions, lists, dicts, TypedDicts and dataclasses."""
    if hint is Any:
        return {}
    if hint in PRIMITIVES:
        return {"type": PRIMITIVES[hint]}
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(one) for one in inner]}
    if origin is list:
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if not (is_dataclass(hint) or is_typeddict(hint)):
        raise TypeError(f"no JSON schema for {hint}")
    required = [f.name for f in fields(hint)] if is_dataclass(hint) else sorted(hint.__required_keys__)
    properties = {key: schema_of(one) for key, one in get_type_hints(hint).items()}
    described = {"description": (hint.__doc__ or "").splitlines()[0], "type": "object", "properties": properties}
    return {**described, "required": required, "additionalProperties": False}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(record_schema(), indent=1) + "\n", encoding="utf-8")

"""A session's profile on disk, for tables and figures that need no models: `profiles/<session_id>.npz`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tabi_bench.profiling.profile import Profile


class Facts(Protocol):
    """What a stored profile says of its session: fields of a record."""

    task: str
    source: str
    zoo: str
    engine: str
    device: str
    session_id: str
    provenance: dict[str, Any]


def save_profile(profile: Profile, folder: Path, record: Facts) -> None:
    """Labels, logits (float16), token counts and latency curves; no text. Written under another name, then moved."""
    arrays: dict[str, Any] = {"labels": profile.labels, "rows": profile.rows}
    for name, model in profile.models.items():
        curve = model.latency
        arrays |= {
            f"{name}/logits": model.logits.astype(np.float16),
            f"{name}/tokens": model.tokens.astype(np.uint16),
            f"{name}/latency_lengths": curve.lengths,
            f"{name}/latency_ms": curve.ms,
            f"{name}/latency_ms_importance": curve.ms_importance,
            f"{name}/step": np.array(curve.step),
        }
    meta = {
        **{key: getattr(record, key) for key in ("task", "source", "zoo", "engine", "device", "session_id")},
        "metric": profile.metric,
        "dtype": record.provenance.get("dtype"),
        "models": profile.names,
        "params": [model.params for model in profile.models.values()],
        "layers": [model.layers for model in profile.models.values()],
        "commit": record.provenance.get("commit"),
        "time": record.provenance.get("time"),
    }
    path = folder / f"{record.session_id}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez_compressed(temporary, meta=np.array(json.dumps(meta)), **arrays)
    os.replace(temporary, path)

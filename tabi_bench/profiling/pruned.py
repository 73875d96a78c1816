"""Outputs of large models on pruned text: run once per (models, alpha, query), then recalled."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tabi_bench.cache import read_sealed, write_sealed
from tabi_bench.engines.base import Encoding, Model
from tabi_bench.profiling.profile import Pruned, PruneKey, Ragged
from tabi_bench.tasks.base import Query

# (words per text, importance per word, key, seed, query id) -> (which words are kept, some word near the threshold)
PruneRule = Callable[[tuple[list[str], ...], np.ndarray, PruneKey, int, int], tuple[np.ndarray, bool]]


class PrunedRunner:
    """Prunes as serving does and runs the same engine call. `save` keeps what was run for the next session.

    prune: the cascade's rule; models: by name, loaded; importance: {model: {option: Ragged over all queries}};
    folder: of the cache, named by the content of data, models and engine. Rows are numbers of `queries`.
    """

    def __init__(
        self,
        prune: PruneRule,
        queries: list[Query],
        models: dict[str, Model],
        importance: dict[str, dict[str, Ragged]],
        folder: Path | None,
        seed: int,
    ):
        self.prune = prune
        self.queries, self.models, self.importance, self.seed = queries, models, importance, seed
        self.folder = folder
        self._outputs: dict[PruneKey, dict[int, tuple]] = {}
        self._encodings: dict[tuple, tuple[Encoding, float, bool]] = {}

    def __call__(self, key: PruneKey, rows: np.ndarray) -> Pruned:
        known = self._outputs.setdefault(key, {}) or self._recall(key)
        for row in map(int, rows):
            if row not in known:
                output = self.models[key.large].forward(self._encode(key, row)[0])
                known[row] = (output.logits, output.pooled)
        if not len(rows):
            raise ValueError(f"no rows to run {key} on")
        prepared = [self._encode(key, int(row)) for row in rows]
        logits = [known[int(row)][0] for row in rows]
        pooled = [known[int(row)][1] for row in rows]
        return Pruned(
            logits=np.stack(logits),
            tokens=np.array([encoding.n_tokens for encoding, _, _ in prepared], np.int64),
            kept_share=np.array([share for _, share, _ in prepared]),
            borderline=np.array([near for _, _, near in prepared], bool),
            pooled=np.stack(pooled) if pooled[0] is not None else None,
        )

    def tokens(self, key: PruneKey, rows: np.ndarray) -> np.ndarray:
        """(n,) tokens of the pruned texts."""
        return np.array([self._encode(key, int(row))[0].n_tokens for row in rows], np.int64)

    def _encode(self, key: PruneKey, row: int) -> tuple[Encoding, float, bool]:
        """(pruned query tokenised for the large model, share of words kept, some importance near the threshold)."""
        identity = (key, row)
        if identity not in self._encodings:
            whole = self.models[key.small].encode(self.queries[row].texts)
            scores = self.importance[key.small][key.importance][row]
            keep, near = self.prune(whole.words, scores, key, self.seed, row)
            share = float(keep.mean()) if len(keep) else 1.0
            self._encodings[identity] = (whole.without(keep, self.models[key.large].encode), share, near)
        return self._encodings[identity]

    def _file(self, key: PruneKey) -> Path | None:
        name = f"{key.small}-{key.large}-{key.alpha:g}-{key.importance}-{key.control}.npz"
        return None if self.folder is None else self.folder.expanduser() / name

    def _recall(self, key: PruneKey) -> dict[int, tuple]:
        file = self._file(key)
        content = None if file is None else read_sealed(file)
        if content is None:
            return self._outputs[key]
        with np.load(io.BytesIO(content)) as stored:
            pooled = stored["pooled"] if "pooled" in stored else [None] * len(stored["rows"])
            entries = zip(stored["rows"].tolist(), stored["logits"], pooled, strict=True)
            self._outputs[key] = {row: (logits, vector) for row, logits, vector in entries}
        return self._outputs[key]

    def save(self) -> None:
        """Writes what was run, a file per key, each at once."""
        for key, known in self._outputs.items():
            file = self._file(key)
            if file is None or not known:
                continue
            arrays: dict[str, Any] = {
                "rows": np.array(list(known)),
                "logits": np.stack([logits for logits, _ in known.values()]),
            }
            if next(iter(known.values()))[1] is not None:
                arrays["pooled"] = np.stack([pooled for _, pooled in known.values()])
            stream = io.BytesIO()
            np.savez(stream, **arrays)
            write_sealed(file, stream.getvalue())

"""Two-fold cross-fitting: each half of the validation split is reported under the plan tuned on the other half."""

from __future__ import annotations

import numpy as np


def two_folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Two disjoint halves of the rows 0..N-1, stratified by label (scores: by decile), each sorted.

    labels: (N,) integers, or floats for regression. Within each stratum the rows are shuffled by `seed` and dealt
    alternately, the first card going to the smaller half, so that halves differ in size by at most one.
    """
    if len(labels) < 4:
        raise ValueError(f"cross-fitting needs at least 4 validation rows, got {len(labels)}; hundreds say something")
    strata = labels
    if labels.dtype.kind == "f":
        strata = np.searchsorted(np.quantile(labels, np.linspace(0, 1, 11)[1:-1]), labels)
    random = np.random.default_rng(seed)
    deck = np.concatenate([random.permutation(np.flatnonzero(strata == s)) for s in np.unique(strata)])
    return [np.sort(deck[0::2]), np.sort(deck[1::2])]

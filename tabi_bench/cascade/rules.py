"""The rules of the cascade as functions of arrays, used by `answer` (one query) and `replay` (all rows) alike.

softmax and confidence, the dispatcher (reroute), pruning of words, the ensemble (combine).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from itertools import accumulate
from operator import add

import numpy as np

MIN_WORDS = 3  # kept of every text
BAND = 1e-3  # around a threshold: there live and replayed decisions may differ
NEVER, ALWAYS = 0.0, 2.0  # thresholds that re-route nothing, everything
CONFIDENCES = ("max", "margin", "entropy")
PRUNINGS = ("importance", "random", "stopwords")
ENSEMBLES = ("weighted", "large", "log_odds", "tuned")


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(z / T) over the last axis, float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def confidence(probabilities: np.ndarray, kind: str = "max") -> np.ndarray:
    """(...,) in [0, 1], higher is surer, of probabilities (..., K). NaN in, NaN out.

    max: the largest probability [Tabi]; margin: it minus the second largest; entropy: 1 - H(p) / log K.
    """
    if kind == "max":
        return probabilities.max(axis=-1)
    if kind == "margin":
        second, first = np.moveaxis(np.partition(probabilities, -2, axis=-1)[..., -2:], -1, 0)
        return first - second
    if kind == "entropy":
        terms = probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))
        return np.clip(1 + terms.sum(axis=-1) / np.log(probabilities.shape[-1]), 0.0, 1.0)
    raise ValueError(f"unknown confidence {kind!r}; there are: {', '.join(CONFIDENCES)}")


def draws(seed: int, ids: np.ndarray | int, stream: int = 0) -> np.ndarray:
    """Uniform numbers in (0, 1) that depend on (seed, id, stream) alone: the splitmix64 hash (Steele et al., 2014)."""
    keys = np.atleast_1d(np.asarray(ids)).astype(np.uint64)
    for salt in (seed & 0xFFFFFFFF, stream):  # arrays: numpy lets their multiplication wrap around silently
        keys = _mix(keys + np.array([salt + 1], np.uint64) * np.array([0x9E3779B97F4A7C15], np.uint64))
    return ((keys >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(keys: np.ndarray) -> np.ndarray:
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def perturb(confidences: np.ndarray, k: float, uniform: np.ndarray) -> np.ndarray:
    """The `sigmoid` dispatcher as a threshold: P(re-route) = sigmoid(k (tau - c)), decided by draws u in (0, 1).

    u < sigmoid(k (tau - c)) exactly if c + logit(u) / k < tau, so these perturbed confidences (N,) are compared with
    tau by `reroute`, and every search over tau serves both dispatchers.
    """
    return confidences + np.log(uniform / (1 - uniform)) / k


def reroute(confidences: np.ndarray | float, tau: float) -> np.ndarray | bool:
    """(...,) bool: confidence below tau, or not finite (fail expensive, never wrong)."""
    sure = confidences >= tau
    return ~sure if isinstance(sure, np.ndarray | np.generic) else not sure


# --- pruning ----------------------------------------------------------------------------------------------------------


def segments(text_words: Sequence[int]) -> list[slice]:
    """The slice of each text in an array over all words of a query."""
    return [slice(end - count, end) for count, end in zip(text_words, accumulate(text_words), strict=True)]


def prune(importance: np.ndarray, text_words: Sequence[int], alpha: float) -> np.ndarray:
    """(W,) bool, True for words that are kept.

    importance: (W,) of the words of all texts, of one query or of several, NaN where unknown; text_words: words of each
    text. A word is dropped if its importance is below alpha times the mean over its text. Kept are unknown words, texts
    of at most three words, and the three most important words of each text.
    """
    if alpha <= 0:
        return np.ones(len(importance), bool)
    counts, known = np.asarray(text_words, np.int64), ~np.isnan(importance)
    text = np.repeat(np.arange(len(counts)), counts)
    number = np.bincount(text, known, len(counts))
    mean = np.bincount(text, np.where(known, importance, 0.0), len(counts)) / np.maximum(number, 1)
    keep = ~(importance < np.where((counts > MIN_WORDS) & (number > 0), alpha * mean, -np.inf)[text])
    ends = counts.cumsum()
    for few in np.flatnonzero(np.bincount(text, keep, len(counts)) < np.minimum(counts, MIN_WORDS)):
        part = slice(ends[few] - counts[few], ends[few])
        scores = importance[part]
        first = np.argsort(-np.where(np.isnan(scores), np.inf, scores), kind="stable")[:MIN_WORDS]
        keep[part][first] = True
    return keep


def near_threshold(importance: np.ndarray, text_words: Sequence[int], alpha: float) -> bool:
    """Whether some word's importance lies within 1e-3 of its text's pruning threshold, relative to the mean."""
    if alpha <= 0:
        return False
    parts = [importance[part] for part in segments(text_words)]
    return any(
        bool((np.abs(scores - alpha * mean) < BAND * mean).any())
        for scores in parts
        if len(scores) > MIN_WORDS and (mean := _mean_known(scores))
    )


def _mean_known(scores: np.ndarray) -> np.floating | None:
    """The mean of the scores that are no NaN, None without any: a tenth of the time that np.nanmean takes."""
    total, count = scores.sum(), len(scores)
    if np.isnan(total):
        known = scores[~np.isnan(scores)]
        total, count = known.sum(), len(known)
    return total / count if count else None


def prune_as_many(
    keep: np.ndarray, text_words: Sequence[int], words: Sequence[str], control: str, seed: int, query: int
) -> np.ndarray:
    """(W,) bool: a control that keeps as many words of each text as `keep` does.

    random: drawn by (seed, query id); stopwords: stop words go first, in the order of the draws, then the others.
    """
    kept = np.ones(len(keep), bool)
    rank = draws(seed, query * 65536 + np.arange(len(keep)), stream=7)
    if control == "stopwords":
        rank = rank + np.array([word.lower().strip(".,;:!?\"'()") not in stop_words() for word in words])
    elif control != "random":
        raise ValueError(f"unknown pruning {control!r}; there are: {', '.join(PRUNINGS)}")
    for part in segments(text_words):
        dropped = int((~keep[part]).sum())
        kept[part.start + np.argsort(rank[part], kind="stable")[:dropped]] = False
    return kept


@cache
def stop_words() -> frozenset[str]:
    """The English stop words of scikit-learn."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS


def kept_words(
    importance: np.ndarray, words: Sequence[Sequence[str]], alpha: float, control: str, seed: int, query: int
) -> np.ndarray:
    """(W,) bool, True for kept words of a query with these `words` per text, by importance or by a control."""
    counts = [len(text) for text in words]
    keep = prune(importance, counts, alpha)
    if control == "importance" or keep.all():
        return keep
    return prune_as_many(keep, counts, [word for text in words for word in text], control, seed, query)


# --- ensemble ---------------------------------------------------------------------------------------------------------


def combine(
    outputs: Sequence[np.ndarray], weights: Sequence[float], kind: str = "weighted", share: float = 0.5
) -> np.ndarray:
    """One output from those of the levels passed, in order: probabilities (..., K), or scores (..., 1).

    weighted: sum a_l p_l / sum a_l [Tabi]; large: the last level's; log_odds: weights log(a / (1 - a)), at least 0.01;
    tuned: `share` of the last level, the rest to the weighted mean of those before it.
    """
    if kind == "large" or len(outputs) == 1:
        return outputs[-1]
    if kind == "tuned":
        return share * outputs[-1] + (1 - share) * combine(outputs[:-1], weights[:-1])
    factors = [float(weight) for weight in weights]
    if kind == "log_odds":
        clipped = np.clip(factors, 1e-3, 1 - 1e-3)
        factors = np.maximum(np.log(clipped / (1 - clipped)), 0.01).tolist()
    elif kind != "weighted":
        raise ValueError(f"unknown ensemble {kind!r}; there are: {', '.join(ENSEMBLES)}")
    return reduce(add, (factor * output for factor, output in zip(factors, outputs, strict=True))) / sum(factors)


def tied(output: np.ndarray, band: float = BAND) -> np.ndarray:
    """(N,) bool: the two largest probabilities of (N, K) are within `band`: another run may give the other label.

    Half precision moves logits in the third decimal between a graph with importance (profiled) and one without. Scores
    (K = 1) have no ties.
    """
    if output.shape[-1] == 1:
        return np.zeros(len(output), bool)
    return confidence(output, "margin") < band


def label_of(output: np.ndarray) -> np.ndarray:
    """(...,) labels, int64, of probabilities (..., K); the score itself, float64, where K is 1."""
    return output[..., 0].astype(np.float64) if output.shape[-1] == 1 else output.argmax(axis=-1).astype(np.int64)

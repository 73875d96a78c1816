"""Deferral: accuracy against the share of queries that goes on to the large model, least confident first."""

from __future__ import annotations

import numpy as np


def deferral_curve(confidence: np.ndarray, small_right: np.ndarray, large_right: np.ndarray) -> np.ndarray:
    """(N + 1,) accuracy when the 0, 1, ..., N least confident queries are re-routed; ties in row order.

    confidence: (N,), NaN (the small model failed) below all others; small_right, large_right: (N,) whether each model
    is right.
    """
    order = np.argsort(np.nan_to_num(confidence, nan=-np.inf), kind="stable")
    gain = np.asarray(large_right, np.float64)[order] - np.asarray(small_right, np.float64)[order]
    return (np.sum(small_right) + np.concatenate([[0.0], np.cumsum(gain)])) / len(order)


def oracle_curve(small_right: np.ndarray, large_right: np.ndarray) -> np.ndarray:
    """(N + 1,) the best curve that any order gives: queries that gain first, queries that lose last."""
    gain = np.asarray(large_right, np.float64) - np.asarray(small_right, np.float64)
    return deferral_curve(-gain, small_right, large_right)


def random_curve(small_right: np.ndarray, large_right: np.ndarray) -> np.ndarray:
    """(N + 1,) expected accuracy under re-routing at random: a straight line."""
    return np.linspace(np.mean(small_right), np.mean(large_right), len(small_right) + 1)


def area(curve: np.ndarray) -> float:
    """Area under a curve over shares 0..1, by the trapezium rule."""
    return float((curve[:-1] + curve[1:]).mean() / 2)

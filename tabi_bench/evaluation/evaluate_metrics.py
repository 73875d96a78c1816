"""The tasks' metrics as `evaluate.Metric`s, for users of that library. Nothing is fetched at run time.

Imported by nobody on the main path: importing `evaluate` takes seconds.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

from tabi_bench.evaluation.metrics import METRICS, score


class TaskMetric(evaluate.Metric):
    """One metric of `tabi_bench.evaluation.metrics`; `compute(references=, predictions=)` gives {name: fraction}."""

    metric = "accuracy"

    def _info(self) -> evaluate.MetricInfo:
        kind = "float64" if self.metric in ("pearson", "spearman") else "int64"
        return evaluate.MetricInfo(
            description=METRICS[self.metric].__doc__ or "",
            citation="",
            inputs_description="references and predictions in the task's label order, or scores for regression",
            features=datasets.Features({"predictions": datasets.Value(kind), "references": datasets.Value(kind)}),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {self.metric: score(self.metric, np.asarray(references), np.asarray(predictions))}


def load(metric: str) -> TaskMetric:
    """The metric by name, as an `evaluate.Metric`. Raises ValueError for an unknown one."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
    return type(f"{metric.title()}Metric", (TaskMetric,), {"metric": metric})()

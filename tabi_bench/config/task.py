"""Schema of conf/task: what is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from tabi_bench.config.fields import among, number, share, text

REGRESSION_METRICS = ("pearson", "spearman")
METRIC = text(
    r"accuracy|f1(@.+)?|matthews|pearson|spearman", "choose one of accuracy, f1, f1@LABEL, matthews, pearson, spearman"
)


@dataclass
class HubConfig:
    """Where the Hugging Face hub keeps a task."""

    path: str | None
    name: str | None  # the data set's configuration
    revision: str | None  # a pinned commit
    label: str | None  # label column there (and in local copies), if it differs


@dataclass
class FilesConfig:
    """Paths of one's own data, instead of a folder per task."""

    train: str | None
    validation: str | None


@dataclass
class TaskConfig:
    """A task: its columns, labels, metric, the slack of its target, and where it lies."""

    name: str = field(metadata=text(r"\w[\w.-]*", "letters, digits, '_', '-' and '.', as it names folders of results"))
    family: str = field(metadata=among("sentence", "pair", "intent", "custom"))  # intents are mapped by name alone
    texts: list[str]  # one or two text columns
    label: str
    labels: list[str]  # names in order; empty: a score, or for other metrics the names found in train
    metric: str = field(metadata=METRIC)
    also: list[str] = field(metadata=METRIC)  # reported beside
    slack: float = field(metadata=number(least=0, most=1))  # of the relative target
    paper_target: float | None = field(metadata=share(one=True))
    hard_share: float | None = field(metadata=share(zero=True, one=True))  # generated: queries that need structure
    split: str
    train_split: str
    official_rows: dict[str, int]  # of the splits, as published
    hub: HubConfig
    files: FilesConfig

    @property
    def is_regression(self) -> bool:
        return self.metric in REGRESSION_METRICS

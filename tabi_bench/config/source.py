"""Schema of conf/source: where the rows come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tabi_bench.config.fields import Choice, ConfigError, number

if TYPE_CHECKING:
    from tabi_bench.config.session import Config

ON_THE_HUB = ("task.hub.path", "task.hub.name", "task.hub.revision")
OF_FILES = ("task.files.train", "task.files.validation")


@dataclass
class SourceConfig(Choice):
    """Base of every source. `code` makes a Task of (task, source, seed)."""

    train_rows: int | None = field(metadata=number(least=1, most=10**8))  # at most, drawn by the seed; None: all
    validation_rows: int | None = field(metadata=number(least=4, most=10**8))  # two for each fold


@dataclass
class GeneratedConfig(SourceConfig):
    """Rows from a grammar: exactly so many."""

    train_rows: int = field(metadata=number(least=1, most=10_000_000))
    validation_rows: int = field(metadata=number(least=4, most=10_000_000))

    def check(self, config: Config, path: str) -> None:
        splits = config.task.official_rows
        if splits and config.task.split not in splits:
            raise ConfigError(f"task.split={config.task.split!r}: task {config.task.name} has {', '.join(splits)}")

    def unread(self, config: Config) -> dict[str, str]:
        unread = (*ON_THE_HUB, "task.hub.label", *OF_FILES, "task.train_split")
        return dict.fromkeys(unread, "source=generated makes its rows from a grammar")


@dataclass
class LocalConfig(SourceConfig):
    """Files on disk: a folder `dir` with one folder per task, or `task.files`."""

    dir: str | None

    def check(self, config: Config, path: str) -> None:
        files = config.task.files
        if not self.dir and not files.train:
            raise ConfigError("source=local needs source.dir, a folder with one folder per task (or task.files)")
        if self.dir and (files.train or files.validation):
            raise ConfigError("source.dir and task.files are both set; files would be read, so leave source.dir out")

    def unread(self, config: Config) -> dict[str, str]:
        return dict.fromkeys((*ON_THE_HUB, "task.hard_share"), "source=local reads files")


@dataclass
class HubSourceConfig(SourceConfig):
    """The Hugging Face hub."""

    def unread(self, config: Config) -> dict[str, str]:
        return dict.fromkeys((*OF_FILES, "task.hard_share"), "source=hub fetches its rows from the hub")

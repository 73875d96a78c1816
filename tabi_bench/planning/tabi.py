"""Tabi (Wang et al., EuroSys 2023): the cascade whose operating point is searched for, of up to three levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tabi_bench.cascade.system import Cascade
from tabi_bench.planning.search import search
from tabi_bench.system import FoldPlan

if TYPE_CHECKING:
    from tabi_bench.config import CascadeConfig
    from tabi_bench.planning.targets import Target
    from tabi_bench.profiling.profile import Profile
    from tabi_bench.records.record import Record


class Tabi(Cascade):
    """The fastest cascade that meets the target, of as many levels as are allowed."""

    name = "tabi"
    searched = True

    @classmethod
    def plan(cls, profile: Profile, target: Target, options: CascadeConfig) -> FoldPlan:
        """The fastest operating point that meets the target on the rows of `profile`. Raises Unreachable."""
        return search(profile, target, options)

    @classmethod
    def conclude(cls, own: Record, session: Mapping[str, Record]) -> None:
        """In words: what was certified, and the search's regret where it was verified."""
        remarks = []
        for k, fold in enumerate(own.details["plan"], start=1):
            if "certificate" in fold:
                remarks.append(f"fold {k}: {fold['certificate']['says']}")
            if "verified" in fold:
                passes, regret = fold["passes"], fold["verified"]["regret_pct"]
                share = passes["run"] / max(passes["exhaustive"], 1)
                counts = f"{passes['run']} of {passes['exhaustive']} passes on pruned text ({share:.0%})"
                remarks.append(f"fold {k}: {counts}; regret against exhaustive search {regret:.2f} %")
        own.details["system"]["remarks"] = remarks

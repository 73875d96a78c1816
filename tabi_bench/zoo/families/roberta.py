"""RoBERTa: BERT's layers; positions counted from behind the padding's, a head of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabi_bench.zoo.families.base import Family


class Roberta(Family):
    def first_place(self, config: Mapping[str, Any]) -> int:
        """See Family."""
        return config.get("pad_token_id", 1) + 1

"""BERT: what the defaults describe."""

from __future__ import annotations

from tabi_bench.zoo.families.base import Family


class Bert(Family):
    embeds_in_one = True

"""One adapter per architecture. A new one is a file here and a line in the table below."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from tabi_bench.zoo.families.base import Family

FAMILIES = {  # model_type of config.json -> its adapter
    "bert": "base:Family",  # what the defaults describe
    "roberta": "roberta:Roberta",
    "distilbert": "distilbert:DistilBert",
    "albert": "albert:Albert",
    "deberta": "deberta:Deberta",
    "deberta-v2": "deberta:DebertaV2",
    "mpnet": "mpnet:MPNet",
    "electra": "electra:Electra",
}


@cache
def family(name: str) -> Family:
    """The adapter of a model_type; an unknown one is a KeyError."""
    module, attribute = FAMILIES[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)()


def cuttable() -> list[str]:
    """Families whose layers can be called one by one."""
    return [name for name in FAMILIES if family(name).cuttable]

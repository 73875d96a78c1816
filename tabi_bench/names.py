"""How systems and tasks are printed, and in which order: the one table of names for terminal and report.

A method that is not here (a plug-in) is printed by its own name, after the others.
"""

from __future__ import annotations

from collections.abc import Iterable

TASKS = ("sst2", "mnli", "rte", "qqp", "mrpc", "cola", "qnli", "stsb", "massive", "clinc")  # the paper's order
INFAAS, COCKTAIL, DEEBERT, TABI, TABI3 = "infaas", "cocktail", "deebert", "tabi", "tabi3"
SINGLE, RANDOM, ORACLE, AGAIN = "single", "random", "oracle", "reference_again"
PRUNING_SCALES = "pruning_scales"
SYSTEMS = {
    INFAAS: "INFaaS",
    SINGLE: "single model",
    COCKTAIL: "Cocktail",
    DEEBERT: "DeeBERT",
    RANDOM: "random routing",
    TABI: "Tabi",
    TABI3: "Tabi, three levels",
    ORACLE: "oracle",
    AGAIN: "reference again",
    PRUNING_SCALES: "pruning scales",
}
LEVELS = (TABI, TABI3, DEEBERT, RANDOM, ORACLE)  # systems with an early return


def printable(text: str) -> str:
    """`text` in one line, what a screen does not show, or shows elsewhere, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def printed(method: str) -> str:
    """A method as the paper writes it."""
    return SYSTEMS.get(method, method)


def place(order: Iterable[str], name: str) -> tuple[int, str]:
    """A key to sort by: names in their order, unknown ones after them by the alphabet."""
    known = list(order)
    return (known.index(name) if name in known else len(known), name)

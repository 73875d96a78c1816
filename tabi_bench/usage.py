"""`--help`: the groups with their choices, and the settings that most people need. `--help-all` lists every setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from tabi_bench.config import choices

EXAMPLES = (
    ("python run.py task=mnli method=tabi", "Tabi and its reference INFaaS, interleaved"),
    ("python run.py -m task=sst2,mnli method=tabi,cocktail", "a sweep: one session per combination"),
    ("python run.py experiment=main_table", "a preset (a table or figure of the paper)"),
)
GROUPS = {
    "task": "what is asked",
    "source": "where its rows come from",
    "zoo": "the ladder of models",
    "method": "the system under test",
    "engine": "how one model runs one query",
    "scenario": "how queries arrive",
    "experiment": "presets",
}
SETTINGS = (
    ("compare=[infaas,tabi,cocktail]", "systems measured side by side, the reference first"),
    ("method.alphas=[0,0.5]", "a setting of the method of method=..."),
    ("systems.cocktail.smoothed=false", "a setting of any other system that is compared"),
    ("target.kind=absolute target.value=0.9", "the score to reach; default: best single model minus a slack"),
    ("search.margin_se=0", "standard errors by which a plan must meet it on the tuning rows"),
    ("source.dir=DIR", "rows of your own, with source=local"),
    ("engine.device=cpu", "auto, cpu or cuda:N"),
    ("scenario.min_queries=1000", "queries that each system serves at least"),
    ("seed=0", "of training, folds and the order of queries"),
    ("results_dir=outputs label=adhoc", "where the records go"),
)
WIDTH, MARGIN = 116, " " * 13


def short(folders: Sequence[Path]) -> str:
    """The text of `--help`; folders: `conf/` and the user's own, whose choices are listed too."""
    lines = ["tabi-bench: multi-level (cascade) inference for BERT-like classifiers, measured side by side.", ""]
    lines += [f"  {command:<54}{meaning}" for command, meaning in EXAMPLES]
    lines += ["", "Groups (group=choice; the head of conf/<group>/<choice>.yaml says what a choice means)", ""]
    for group, meaning in GROUPS.items():
        names = " ".join(choices(group, folders))
        listed = wrap(names, WIDTH, initial_indent=MARGIN, subsequent_indent=MARGIN, break_on_hyphens=False)
        lines += [f"  {group:<{len(MARGIN) - 2}}{meaning}", *listed]
    lines += ["", "Settings (key=value)", "", *(f"  {key:<40}{meaning}" for key, meaning in SETTINGS)]
    lines += ["", "Every setting: --help-all    What would run: --cfg job    Choices of your own: --config-dir DIR"]
    return "\n".join([*lines, "All of Hydra's flags: --hydra-help"])

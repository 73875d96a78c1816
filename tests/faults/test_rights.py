"""What a user has no right to is named in one sentence, before any work."""

from __future__ import annotations

import re

import pytest

from tests.processes import FEW, command_line_without_rights, ended, start

OWN = ["task=custom", "source=local", "task.files.train={}/train.csv", "task.files.validation={}/train.csv"]
CLOSED = {  # what is closed, the arguments, the sentence
    "results": (["results_dir={}/results/r"], "results_dir: cannot write to {}/results/r: Permission denied"),
    "cache": (["cache_dir={}/cache/c"], "cannot write to {}/cache/c: Permission denied; set another"),
    "cache/micro": (["cache_dir={}/cache"], "{}/cache/micro/[0-9a-f]+.lock: Permission denied"),
    "train.csv": (OWN, "{}/train.csv cannot be read: Permission denied"),
    "data/sst2": (["source=local", "source.dir={}/data"], "{}/data/sst2: Permission denied"),
    "plan.json": (["plan={}/plan.json"], "{}/plan.json cannot be read: no right to"),
    "conf": (["--config-dir={}/conf"], "{}/conf: Permission denied"),
}
DEFAULT = ("results", "train.csv")


@pytest.mark.parametrize("name", [k if k in DEFAULT else pytest.param(k, marks=pytest.mark.slow) for k in CLOSED])
def test_what_is_closed_to_a_user_is_named(name, tmp_path):
    arguments, sentence = CLOSED[name]
    closed, says = tmp_path / name, tmp_path / "said"
    closed.parent.mkdir(parents=True, exist_ok=True)
    closed.touch(mode=0) if closed.suffix else closed.mkdir(mode=0o500 if name[:5] in ("resul", "cache") else 0)
    usual = ["task=sst2", f"results_dir={tmp_path}/out", f"cache_dir={tmp_path}/kept", "source.train_rows=400", *FEW]
    given = {argument.split("=")[0]: argument.replace("{}", str(tmp_path)) for argument in [*usual, *arguments]}
    assert ended(start(command_line_without_rights, *given.values(), says=says)) == 1
    last = says.read_text().splitlines()[-1]
    assert re.fullmatch(sentence.replace("{}", re.escape(str(tmp_path))) + ".*", last)
    assert "Traceback" not in says.read_text() and not list(tmp_path.rglob("model.safetensors"))

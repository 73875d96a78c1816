"""Text files are UTF-8 whatever the locale: each call that opens one says so (PLW1514 of ruff sees only some)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("tabi_bench", "baselines", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
ARCHIVES = ("archive", "packed", "os")  # zip archives, which open bytes; and descriptors


def unnamed(source: str) -> list[int]:
    """Lines on which a text file is read or written without an encoding."""
    lines = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if method else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if method else ""
        if any(keyword.arg in ("encoding", None) for keyword in call.keywords) or owner in ARCHIVES:
            continue
        modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
        text = {"read_text": not call.args, "write_text": len(call.args) == 1, "open": not binary}
        if text.get(name, False) and (method or name == "open"):
            lines.append(call.lineno)
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_file_is_opened_as_utf8(path):
    assert unnamed(path.read_text(encoding="utf-8")) == []


def test_the_check_sees_what_it_should():
    assert unnamed("a.read_text()\na.write_text('x')\nopen(b)\nopen(b, 'w')\nb.open()") == [1, 2, 3, 4, 5]
    assert unnamed("a.read_text(encoding='utf-8')\nopen(b, 'rb')\na.read_text('utf-8')\npacked.open('x', 'w')") == []


@pytest.mark.parametrize("locale", [{"LC_ALL": "en_US.ISO-8859-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_names_with_accents_are_read_and_printed_under_other_locales(locale, tmp_path):
    rows = "".join(f"un café {k},{('négatif', 'positif')[k % 2]}\n" for k in range(20))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    code = (
        "from tabi_bench.config import read_file; from tabi_bench.tasks import load_task; import sys\n"
        "files = {split: f'{sys.argv[1]}/{split}.csv' for split in ('train', 'validation')}\n"
        "task = load_task(read_file('task', 'custom', files=files), read_file('source', 'local'), 0)\n"
        "assert task.config.labels == ['n\\xe9gatif', 'positif'], task.config.labels"
    )
    environment = os.environ | {"PYTHONCOERCECLOCALE": "0"} | locale
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]

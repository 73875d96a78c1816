"""The example of serving on Ray, started for real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tabi_bench import load, run_session
from tabi_bench.export import export

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_answers_over_http_are_those_of_the_classifier(micro, tmp_path):
    pytest.importorskip("ray.serve", reason="needs the extra [serve]", exc_type=ImportError)
    records = run_session(micro("method=tabi", "systems.tabi.fewer_levels=false"))
    export(tmp_path / "results" / "adhoc" / records[1].run_id, tmp_path / "plan")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 8000)), "port 8000 is taken"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "serve_ray.py", tmp_path / "plan"], env=environment, stdout=log, stderr=log
    )
    try:
        classify = load(tmp_path / "plan")
        words = ["good", "bad", "never", "so", "film"]
        texts = [tuple(f"{a} {b} {c}" for _ in classify.columns) for a in words for b in words for c in words[:2]]
        expected = classify(texts)
        answers = [ask(given, server, log.name) for given in texts]
        assert [(a["answer"], a["level"]) for a in answers] == [(p.label, p.level) for p in expected]
        assert {a["level"] for a in answers} == {1, 2}
    finally:
        server.terminate()
        server.wait(60)


def ask(texts, server, log, patience=120.0):
    """The server's answer, once it is up."""
    request = urllib.request.Request("http://127.0.0.1:8000", json.dumps({"texts": texts}).encode())
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(Path(log).read_text(encoding="utf-8")[-3000:])
            time.sleep(1)

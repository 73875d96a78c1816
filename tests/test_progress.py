"""Bars are for terminals; log files get a line now and then."""

from __future__ import annotations

import gc
import io
import logging
import signal
import time
from itertools import count

import pytest

from tabi_bench import progress as module
from tabi_bench.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_lines_and_no_carriage_return(monkeypatch, caplog):
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    caplog.set_level(logging.INFO)
    stream = io.StringIO()
    for _ in progress(range(20), desc="serving", stream=stream):
        time.sleep(0.01)
    assert stream.getvalue() == ""
    assert 1 <= len(caplog.messages) <= 10
    assert caplog.messages[0].startswith("serving: ") and " of 20, " in caplog.messages[0]
    assert not any("\r" in message for message in caplog.messages)


def test_what_is_quick_says_nothing(caplog):
    caplog.set_level(logging.INFO)
    with progress(total=3, desc="serving", stream=io.StringIO()) as bar:
        bar.update(3)
    assert caplog.messages == []


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    list(progress(range(3), desc="serving", stream=stream))
    assert "serving" in stream.getvalue()


def test_a_step_that_does_not_end_is_said_and_then_interrupted(monkeypatch, caplog):
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    monkeypatch.setenv("TABI_BENCH_WAIT_S", "0.3")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a parallel run ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in progress(range(2), desc="profile large", stream=io.StringIO()):
                time.sleep(10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "profile large: no step for 0 s; a model may hang" in caplog.messages
    assert "ended. TABI_BENCH_WAIT_S sets the limit in seconds" in caplog.messages[-1]


def test_a_long_step_whose_parts_go_on_gets_lines_and_no_warning(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "EVERY_S", 0.05)
    monkeypatch.setenv("TABI_BENCH_WAIT_S", "0.1")
    looks = count(1)
    with progress(total=2, desc="serving", stream=io.StringIO()) as bar:
        bar.within = lambda: next(looks)
        time.sleep(0.4)
    assert next(looks) >= 2 and not any("no step" in message for message in caplog.messages)
    assert caplog.messages[0].startswith("serving: 0 of 2, ")


def test_a_bar_that_was_left_open_by_an_error_is_watched_no_longer(monkeypatch, caplog):
    monkeypatch.setattr(module, "EVERY_S", 0.05)

    def fail():
        bar = progress(total=2, desc="serving", stream=io.StringIO())
        raise ValueError(str(bar.total))

    with pytest.raises(ValueError, match="2"):
        fail()
    gc.collect()
    caplog.clear()
    time.sleep(0.3)
    assert caplog.messages == []

"""Our arrival clock beside MLPerf's LoadGen: the same fixed-sleep system under both Server scenarios."""

import queue
import threading
import time

import numpy as np
import pytest
from scipy import stats

from tabi_bench.serving.arrivals import poisson
from tabi_bench.serving.clock import WallClock
from tabi_bench.serving.queues import Limits, Server
from tabi_bench.system import Answer, System
from tabi_bench.tasks.base import Query

loadgen = pytest.importorskip("mlperf_loadgen", reason="needs the extra loadgen")
SLEEP_S, RATE, COUNT, RUNS = 0.002, 200.0, 1500, 4
HANDOVER_MS = 0.2  # LoadGen issues and is answered on threads of its own; ours is one thread


class Sleeper:
    """One query at a time, each after the same sleep."""

    stages = 1
    begin = System.begin

    def run(self, stage, items):
        time.sleep(SLEEP_S)
        return [Answer(0, 0)]


def ours(seed):
    """p50 and p99 in milliseconds of one run."""
    due = (poisson(COUNT, seed) / RATE * 1e9).astype(np.int64)
    result = Server([(Sleeper(), Query(0, ("x",)))] * COUNT, due, WallClock(), Limits(1)).serve()
    return np.quantile((result.finished_ns - result.started_ns - due) / 1e6, [0.5, 0.99])


def theirs(seed, folder):
    """The same from the summary that LoadGen writes; a thread of its own serves what LoadGen issues."""
    waiting = queue.SimpleQueue()

    def work():
        while (sample := waiting.get()) is not None:
            time.sleep(SLEEP_S)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    worker = threading.Thread(target=work)
    worker.start()
    settings, logs = loadgen.TestSettings(), loadgen.LogSettings()
    settings.scenario, settings.mode = loadgen.TestScenario.Server, loadgen.TestMode.PerformanceOnly
    settings.server_target_qps, settings.server_target_latency_ns = RATE, 10**9
    settings.min_query_count = settings.max_query_count = COUNT
    settings.min_duration_ms, settings.schedule_rng_seed = 0, 1000 + seed
    folder.mkdir()
    logs.log_output.outdir = str(folder)
    system = loadgen.ConstructSUT(lambda samples: [waiting.put(sample) for sample in samples], lambda: None)
    library = loadgen.ConstructQSL(COUNT, COUNT, lambda samples: None, lambda samples: None)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, logs, "")
    finally:
        waiting.put(None)
        worker.join()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    lines = (folder / "mlperf_log_summary.txt").read_text().splitlines()
    return [
        next(int(line.split(":")[1]) for line in lines if line.startswith(f"{q} percentile latency")) / 1e6
        for q in ("50.00", "99.00")
    ]


@pytest.mark.slow
def test_percentiles_agree_with_loadgen(tmp_path):
    """The difference of p50, and of p99, has an interval over runs that reaches zero, but for handing over."""
    pairs = [(ours(seed), theirs(seed, tmp_path / str(seed))) for seed in range(RUNS)]  # side by side, as noise drifts
    own, other = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    assert (own[:, 0] >= 1e3 * SLEEP_S).all() and (other[:, 0] >= 1e3 * SLEEP_S).all()
    for k, name in enumerate(("p50", "p99")):
        interval = stats.ttest_ind(other[:, k], own[:, k], equal_var=False).confidence_interval(0.95)
        print(name, "ours", own[:, k].round(3), "LoadGen", other[:, k].round(3), interval)
        assert interval.low <= HANDOVER_MS and interval.high >= 0, (name, own[:, k], other[:, k])

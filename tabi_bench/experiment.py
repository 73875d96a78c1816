"""One session on one page: open -> profile -> plan -> serve -> record. Read this first.

A session is one task, one zoo, one engine and one scenario in one process. All its systems serve the same queries,
interleaved, under the same target; each yields one record.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tabi_bench import device, registry
from tabi_bench.cascade.pruning import prune_query
from tabi_bench.config import Config
from tabi_bench.engines import make_engine
from tabi_bench.planning import folds, plan_file
from tabi_bench.planning.overhead import with_overheads
from tabi_bench.planning.plans import Plans, make_plans
from tabi_bench.planning.plausible import implausible
from tabi_bench.profiling.lab import Lab, engine_key
from tabi_bench.profiling.profile import Profile
from tabi_bench.profiling.store import save_profile
from tabi_bench.records.describe import Measured, fill
from tabi_bench.records.ledger import Ledger
from tabi_bench.records.provenance import config_hash
from tabi_bench.records.record import Record, age
from tabi_bench.records.store import check_writable, write_run
from tabi_bench.system import Plan, System
from tabi_bench.tasks import load_task
from tabi_bench.zoo import load_zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What a session knows once data, models and engine are there. systems: by method, the reference's first."""

    config: Config
    systems: dict[str, type[System]]
    lab: Lab
    ledger: Ledger
    given: dict[str, Plan]  # a plan from a file, by its method


def run_session(config: Config) -> list[Record]:
    """Runs (or finds finished) the session that `config` describes; its records, the reference's first.

    With `prepare` it ends, without records, once models and their outputs are cached. Raises what went wrong, after
    writing records with status "failed" that say so.
    """
    check_writable(Path(config.results_dir).expanduser() / config.label)
    check_writable(Path(config.cache_dir))
    session = open_session(config)
    try:
        done = session.ledger.finished()
        if done and not config.overwrite:
            commit = (done[0].provenance.get("commit") or "unknown")[:10]
            log.info("already measured %s ago at commit %s; overwrite=true measures again", age(done[0]), commit)
            return done
        if config.prepare:
            session.lab.outputs(_importance(session.config))
            log.info("prepared: models trained, their outputs cached; nothing was measured")
            return []
        with device.old_objects_frozen():
            return _measure(session)
    except Exception as error:
        session.ledger.record_failure(error)
        raise
    finally:
        session.lab.engine.close()


def open_session(config: Config) -> Session:
    """Engine, data, models and systems of a session, checked; `session.lab.engine` is to be closed."""
    engine = make_engine(config.engine)
    task = load_task(config.task, config.source, config.seed)
    log.info("%s: %d train, %d validation rows (%s)", task.name, len(task.train), len(task.validation), task.source)
    cache_dir = Path(config.cache_dir).expanduser()
    zoo = load_zoo(config.zoo, task, cache_dir, config.seed, engine.device)
    systems = registry.system_classes(config.systems)
    for method, system in systems.items():
        system.check(config.systems[method], zoo.names)
    lab = Lab(task, zoo, engine, cache_dir, config.seed, config.scenario.profile_rounds)
    facts = device.describe(engine.device)
    contents = (task.content_hash, [(m.name, m.content_hash) for m in zoo.models], engine_key(engine), facts["name"])
    given = {}
    if config.plan is not None:  # its options are those that it was made with
        name = config.method.name
        given[name], options = plan_file.given_plan(Path(config.plan), lab, systems[name], config.method)
        config = replace(config, method=options, systems=config.systems | {name: options})
    ledger = Ledger(config, config_hash(config, list(systems), *contents), facts, engine.dtype)
    return Session(config, systems, lab, ledger, given)


def _importance(config: Config) -> list[str]:
    """The importance options that some system of the session may read."""
    return sorted({option for options in config.systems.values() for option in options.importance_options})


def _measure(session: Session) -> list[Record]:
    config, lab = session.config, session.lab
    start = time.perf_counter()
    profile = measure_profile(session)
    offline_s = {"train": lab.zoo.train_s, "profile": time.perf_counter() - start}
    made_for = plan_file.fingerprint(lab.task, lab.zoo, lab.engine)
    plans = make_plans(config, session.systems, profile, made_for, session.given)
    traces = _serve(session, plans)
    lab.pruned.save()
    warnings = [*lab.task.warnings, *implausible(profile)]
    measured = Measured(
        config, lab.task, profile, plans, traces, offline_s, lab.zoo.notes, lab.engine.describe(), warnings
    )
    return _record(session, measured)


def measure_profile(session: Session) -> Profile:
    """What is known offline of all models, on all validation rows."""
    config, lab = session.config, session.lab
    profile = lab.profile(_importance(config), prune_query)
    profile = with_overheads(profile, lab, _importance(config))
    for method, system in session.systems.items():
        profile = system.prepare(lab, profile, config.systems[method])
    return profile


def _serve(session: Session, plans: Plans) -> dict[str, pd.DataFrame]:
    """Traces by method."""
    config, lab = session.config, session.lab
    served_by = folds.deploy(session.systems, plans.made, lab, config.systems)
    lab.engine.forget_words()
    queries = lab.task.queries
    log.info("serving %d queries to %s", len(queries), ", ".join(served_by))
    with lab.exclusive():
        serve = registry.load(config.scenario.code)
        return serve(served_by, queries, config.scenario, config.seed, lab.engine.device)


def _record(session: Session, measured: Measured) -> list[Record]:
    """Traces and plans first, records last: a folder with a record is whole."""
    records = {method: session.ledger.blank(method) for method in session.systems}
    for method, record in records.items():
        record.warnings = measured.warnings
        if method in measured.plans.infeasible:
            record.status, record.error = "infeasible", measured.plans.infeasible[method]
        else:
            system = session.systems[method]
            fill(record, measured, system, folds.replay(system, measured.plans.made[method], measured.profile))
    served = {method: record for method, record in records.items() if record.status == "ok"}
    for method, record in served.items():
        session.systems[method].conclude(record, served)
    save_profile(measured.profile, session.ledger.root / "profiles", next(iter(records.values())))
    for method, record in records.items():
        plan, trace = measured.plans.made.get(method), measured.traces.get(method)
        write_run(session.ledger.folder(method), record, plan, trace)
    return list(records.values())

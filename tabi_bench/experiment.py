"""One session on one page: open -> profile -> plan -> serve -> record. Read this first.

A session is one task, one zoo, one engine and one scenario in one process. All its systems serve the same queries,
interleaved, under the same target; each yields one record.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from tabi_bench import device
from tabi_bench.config import Config
from tabi_bench.planning import folds, plan_file
from tabi_bench.planning.plans import Plans, make_plans
from tabi_bench.planning.plausible import implausible
from tabi_bench.profiling.profile import Profile
from tabi_bench.profiling.store import save_profile
from tabi_bench.records.describe import Measured, fill
from tabi_bench.records.record import Record, age
from tabi_bench.records.store import check_writable, write_run
from tabi_bench.serving.scenario import Expected, Serving
from tabi_bench.session import Session, importance_options, measure_profile, open_session

log = logging.getLogger(__name__)


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
            session.lab.outputs(importance_options(session.config))
            log.info("prepared: models trained, their outputs cached; nothing was measured")
            return []
        with device.old_objects_frozen():
            return _measure(session)
    except Exception as error:
        session.ledger.record_failure(error)
        raise
    finally:
        session.lab.engine.close()


def _measure(session: Session) -> list[Record]:
    config, lab = session.config, session.lab
    start = time.perf_counter()
    profile = measure_profile(session)
    offline_s = {"train": lab.zoo.train_s, "profile": time.perf_counter() - start}
    made_for = plan_file.fingerprint(lab.task, lab.zoo, lab.engine)
    plans = make_plans(config, session.systems, profile, made_for, session.given)
    served = _serve(session, plans, profile)
    lab.pruned.save()
    targets = [fold.target for plan in plans.made.values() for fold in plan.folds]
    warnings = [*lab.task.warnings, *implausible(profile, max(targets, default=None))]
    zoo_notes, engine = lab.zoo.notes, lab.engine.describe()
    measured = Measured(config, lab.task, profile, plans, served, offline_s, zoo_notes, engine, warnings)
    return _record(session, measured)


def _serve(session: Session, plans: Plans, profile: Profile) -> Serving:
    """What the scenario measured. A method that it could not serve has no result, and says why."""
    config, lab = session.config, session.lab
    served_by = folds.deploy(session.systems, plans.made, lab, config.systems)
    lab.engine.forget_words()
    queries = lab.task.queries
    if not served_by:
        return Serving({})
    reference = next(iter(served_by))
    expected = Expected(*folds.expected_ms(session.systems[reference], plans.made[reference], profile))
    log.info("serving %d queries to %s (%s)", len(queries), ", ".join(served_by), config.scenario.name)
    with lab.exclusive():
        served = session.scenario.serve(served_by, queries, expected)
    plans.infeasible |= served.refused
    return served


def _record(session: Session, measured: Measured) -> list[Record]:
    """Traces and plans first, records last: a folder with a record is whole."""
    records = {method: session.ledger.blank(method) for method in session.systems}
    for method, record in records.items():
        record.warnings = measured.warnings
        if method in measured.plans.infeasible:
            record.status, record.error = "infeasible", measured.plans.infeasible[method]
            record.details["load"] = measured.served.facts.get(method)
        else:
            system = session.systems[method]
            fill(record, measured, system, folds.replay(system, measured.plans.made[method], measured.profile))
    served = {method: record for method, record in records.items() if record.status == "ok"}
    for method, record in served.items():
        session.systems[method].conclude(record, served)
    save_profile(measured.profile, session.ledger.root / "profiles", next(iter(records.values())))
    for method, record in records.items():
        plan, trace = measured.plans.made.get(method), measured.served.traces.get(method)
        write_run(session.ledger.folder(method), record, plan, trace)
    return list(records.values())

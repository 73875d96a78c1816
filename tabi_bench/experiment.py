"""One session on one page: data -> zoo -> profile -> plan -> serve -> record. Read this first.

A session is one task, one zoo and one engine in one process. All its systems serve the same queries, interleaved, under
the same target; each yields one record.
"""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabi_bench import device, records, registry
from tabi_bench.cascade.certify import certify, set_apart
from tabi_bench.cascade.overhead import with_overheads
from tabi_bench.cascade.pruning import prune_query
from tabi_bench.cascade.search import verify
from tabi_bench.config import CascadeConfig, Config, ControlConfig, MethodConfig
from tabi_bench.engines import make_engine
from tabi_bench.engines.base import Engine
from tabi_bench.engines.encoding import forget_words
from tabi_bench.evaluation.targets import Target
from tabi_bench.fingerprint import check_plan, fingerprint
from tabi_bench.profiling.build import build_profile, engine_key, run_models
from tabi_bench.profiling.profile import Profile
from tabi_bench.profiling.store import save_profile
from tabi_bench.records import Record
from tabi_bench.results import beside_oracle, describe_result, replayed_result, time_saved
from tabi_bench.serving.single_stream import serve
from tabi_bench.system import Infeasible, Plan, System
from tabi_bench.tasks import load_task
from tabi_bench.tasks.base import Task
from tabi_bench.tasks.folds import two_folds
from tabi_bench.zoo import load_zoo
from tabi_bench.zoo.base import Zoo

log = logging.getLogger(__name__)


@dataclass
class Session:
    """What a session knows once data, models and engine are there."""

    config: Config
    options: dict[str, MethodConfig]
    task: Task
    zoo: Zoo
    engine: Engine
    key: str
    session_id: str
    started: float = field(default_factory=time.perf_counter)
    offline_s: dict[str, float] = field(default_factory=dict)

    def run_id(self, method: str) -> str:
        c = self.config
        return f"{c.task.name}-{method}-{c.source.name}-{c.zoo.name}-{c.engine.name}-{self.key}"

    def folder(self, method: str) -> Path:
        return Path(self.config.results_dir).expanduser() / self.config.label / self.run_id(method)

    def blank(self, method: str) -> Record:
        """A record with everything but results."""
        c = self.config
        facts = device.describe(self.engine.device)
        return Record(
            run_id=self.run_id(method),
            session_id=self.session_id,
            task=c.task.name,
            method=method,
            source=c.source.name,
            zoo=c.zoo.name,
            engine=c.engine.name,
            device=facts["name"],
            config={**asdict(c), "method": asdict(self.options[method])},
            provenance=records.provenance(facts, self.engine.dtype),
        )


def run_session(config: Config) -> list[Record]:
    """Runs (or finds finished) the session that `config` describes; its records, the reference's first.

    With `prepare` it ends, without records, once models and their outputs are cached. Raises what went wrong, after
    writing records with status "failed" that say so.
    """
    cache_dir = Path(config.cache_dir).expanduser()
    for folder in (Path(config.results_dir).expanduser() / config.label, cache_dir):
        records.check_writable(folder)
    session = _open(config, cache_dir)
    try:
        done = records.finished([session.folder(method) for method in session.options])
        if done and not config.overwrite:
            commit = (done[0].provenance.get("commit") or "unknown")[:10]
            log.info(
                "already measured %s ago at commit %s; overwrite=true measures again", records.age(done[0]), commit
            )
            return done
        if config.prepare:
            run_models(session.task, session.zoo, session.engine, cache_dir, _importance(session.options))
            log.info("prepared: models trained, their outputs cached; nothing was measured")
            return []
        with device.old_objects_frozen():
            return _measure(session, cache_dir)
    except Exception as error:
        _record_failure(session, error)
        raise
    finally:
        session.engine.close()


def _open(config: Config, cache_dir: Path) -> Session:
    engine = make_engine(config.engine)
    task = load_task(config.task, config.source, config.seed)
    log.info("%s: %d train, %d validation rows (%s)", task.name, len(task.train), len(task.validation), task.source)
    zoo = load_zoo(config.zoo, task, cache_dir, config.seed, engine.device)
    options = config.systems
    for chosen in options.values():
        if check := getattr(registry.load(chosen.code), "check", None):
            check(chosen, zoo.names)
    contents = (task.content_hash, [(m.name, m.content_hash) for m in zoo.models], engine_key(engine))
    name = device.describe(engine.device)["name"]
    key = records.config_hash(config, list(options), *contents, name)
    return Session(config, options, task, zoo, engine, key, records.new_session_id(key))


def _measure(session: Session, cache_dir: Path) -> list[Record]:
    config, task = session.config, session.task
    given = _given_plan(session)
    start = time.perf_counter()
    profile = build_profile(
        task,
        session.zoo,
        session.engine,
        cache_dir,
        _importance(session.options),
        prune_query,
        config.seed,
        config.scenario.profile_rounds,
    )
    with device.exclusive(device.describe(session.engine.device)["id"], log):
        wanted = _importance(session.options)
        profile = with_overheads(
            profile, session.zoo, session.engine, task.queries, wanted, config.scenario.profile_rounds
        )
    for name in session.options:
        profile = _prepare(session, name, profile, cache_dir)
    session.offline_s = {"train": session.zoo.train_s, "profile": time.perf_counter() - start}
    plans, infeasible = _plans(session, profile, given)
    plain = plain_rule(session, profile) if config.search.margin_se and not config.plan else {}
    systems = {name: _deploy(session, name, plan, profile, plans) for name, plan in plans.items()}
    forget_words()
    log.info("serving %d queries to %s", max(len(task.queries), config.scenario.min_queries), ", ".join(systems))
    with device.exclusive(device.describe(session.engine.device)["id"], log):
        traces = serve(systems, task.queries, profile.rows, config.scenario, config.seed, session.engine.device)
    profile.run_pruned.save()
    found = _describe(session, profile, plans, infeasible, systems, traces)
    for record in found:
        record.details["plain_rule"] = plain.get(record.method)
    _write(session, found, plans, traces, profile)
    return found


def _importance(options: dict[str, MethodConfig]) -> list[str]:
    """The importance options that some system of the session may read."""
    nested = [o.cascade if isinstance(o, ControlConfig) else o for o in options.values()]
    return sorted({o.importance for o in nested if isinstance(o, CascadeConfig) and any(o.alphas)})


def _system(session: Session, name: str) -> type[System]:
    return registry.load(session.options[name].code)


def _prepare(session: Session, name: str, profile: Profile, cache_dir: Path) -> Profile:
    """Lets a system train or profile what is its own (DeeBERT's off-ramps) before planning."""
    prepare = getattr(_system(session, name), "prepare", None)
    if prepare is None:
        return profile
    return prepare(
        session.task, session.zoo, session.engine, profile, cache_dir, session.options[name], session.config.seed
    )


def _folds(session: Session, profile: Profile, margin_se: float) -> tuple[list, list[Profile], list[Target]]:
    """The two halves of the rows (positions), the profiles to tune on, and the target on each."""
    config = session.config
    halves = two_folds(session.task.labels("validation"), config.seed)
    views = [profile.view(tune) for tune, _ in (_parts(session, half) for half in halves)]
    slack = config.task.slack if config.target.slack is None else config.target.slack
    value = config.task.paper_target if config.target.kind == "paper" else config.target.value
    targets = [Target.of(v, config.target.kind, value, slack, margin_se, config.seed) for v in views]
    return halves, views, targets


def _parts(session: Session, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a half to tune on, and those that only certification sees (none unless it is asked for)."""
    if session.config.certify.epsilon is None:
        return half, half[:0]
    return set_apart(session.task.labels("validation"), half, session.config.seed)


def _given_plan(session: Session) -> dict[str, Plan]:
    """The plan that `plan=path` names, by its method, refused before any work if it was made for something else."""
    config = session.config
    if config.plan is None:
        return {}
    plan = Plan.load(Path(config.plan))
    made_for = fingerprint(session.task, session.zoo, session.engine)
    check_plan(plan, session.task.name, config.method.name, made_for)
    return {config.method.name: plan}


def _plans(session: Session, profile: Profile, given: dict[str, Plan]) -> tuple[dict[str, Plan], dict[str, Infeasible]]:
    """A plan per system: each half of the rows is served under what was tuned on the other half."""
    config = session.config
    halves, views, targets = _folds(session, profile, config.search.margin_se)
    made_for = fingerprint(session.task, session.zoo, session.engine)
    plans, infeasible = {}, {}
    for name, options in session.options.items():
        start = time.perf_counter()
        if name in given:
            plans[name] = given[name]
            continue
        try:
            folds = [_system(session, name).plan(v, t, options) for v, t in zip(views, targets, strict=True)]
        except Infeasible as reason:
            log.warning("%s: %s", name, reason)
            infeasible[name] = reason
            continue
        for fold, served in zip(folds, reversed(halves), strict=True):
            fold.serves = served.tolist()
        if config.certify.epsilon is not None and isinstance(options, CascadeConfig):
            for fold, view, half in zip(folds, views, halves, strict=True):
                held = profile.view(_parts(session, half)[1])
                fold.predicted["certificate"] = certify(fold, view, held, config.certify)
        if config.search.verify and isinstance(options, CascadeConfig):
            for fold, view, target in zip(folds, views, targets, strict=True):
                fold.predicted["verified"] = verify(view, target, options, fold)
        plans[name] = Plan(name, session.task.name, folds, config.seed, made_for, asdict(options))
        session.offline_s[f"search {name}"] = time.perf_counter() - start
        log.info("%s: planned in %.1f s", name, session.offline_s[f"search {name}"])
    return plans, infeasible


def plain_rule(session: Session, profile: Profile) -> dict[str, dict[str, float] | None]:
    """What each system would yield under margin_se=0, replayed on the profile: score, latency, reduction.

    None for a system without such a plan. The oracle follows Tabi's measured score, so it has none.
    """
    halves, views, targets = _folds(session, replace(profile, race=None), 0.0)
    found: dict[str, dict[str, float] | None] = {}
    for name, options in session.options.items():
        if name == "oracle":
            continue
        try:
            folds = [_system(session, name).plan(v, t, options) for v, t in zip(views, targets, strict=True)]
        except Infeasible:
            found[name] = None
            continue
        for fold, served in zip(folds, reversed(halves), strict=True):
            fold.serves = served.tolist()
        plan = Plan(name, session.task.name, folds, session.config.seed, {}, {})
        said = _system(session, name).replay(plan, profile, profile.rows)
        found[name] = replayed_result(profile, said, found.get(next(iter(session.options))))
    return found


def _told(session: Session, name: str, plan: Plan, profile: Profile, plans: dict[str, Plan]) -> dict[str, Any]:
    """What a system gets beside its plan: the oracle alone is handed labels, as decisions made beforehand."""
    decide = getattr(_system(session, name), "decide", None)
    return {} if decide is None else {"table": decide(plan, profile, plans)}


def _deploy(session: Session, name: str, plan: Plan, profile: Profile, plans: dict[str, Plan]) -> System:
    """Loads a system, ready to answer."""
    told = _told(session, name, plan, profile, plans)
    return _system(session, name).deploy(plan, session.zoo, session.engine, session.options[name], **told)


def _describe(session, profile, plans, infeasible, systems, traces: dict[str, pd.DataFrame]) -> list[Record]:
    found = []
    reference = next(iter(traces))
    for name in session.options:
        record = session.blank(name)
        record.wall_s = time.perf_counter() - session.started
        if name in infeasible:
            record.status, record.error = "infeasible", str(infeasible[name])
        else:
            told = _told(session, name, plans[name], profile, plans)
            replayed = _system(session, name).replay(plans[name], profile, profile.rows, **told)
            describe_result(record, session, profile, plans[name], systems[name], traces, reference, replayed)
        found.append(record)
    ok = {record.method: record for record in found if record.status == "ok"}
    beside_oracle(ok)
    time_saved(ok)
    return found


def _write(session: Session, found: list[Record], plans, traces, profile: Profile) -> None:
    """Traces and plans first, records last: a folder with a record is whole."""
    root = Path(session.config.results_dir).expanduser() / session.config.label
    save_profile(profile, root / "profiles" / f"{session.session_id}.npz", found[0], session.engine)
    for record in found:
        folder = session.folder(record.method)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").unlink(missing_ok=True)
        if record.method in plans:
            plans[record.method].save(folder / "plan.json")
            temporary = folder / ".trace.parquet"
            traces[record.method].to_parquet(temporary)
            temporary.replace(folder / "trace.parquet")
    for record in found:
        record.save(session.folder(record.method))


def _record_failure(session: Session, error: Exception) -> None:
    """A failed run leaves a record that says why, unless an earlier good one is there."""
    last = "".join(traceback.format_exception(error)[-3:])
    for method in session.options:
        folder = session.folder(method)
        if records.finished([folder]):
            continue
        record = session.blank(method)
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        record.details = {"traceback": last}
        record.wall_s = time.perf_counter() - session.started
        try:
            record.save(folder)
        except OSError as problem:
            log.error("the failure could not be recorded in %s: %s", folder, problem)

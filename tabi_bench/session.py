"""A session before it is measured: its data, models, engine and systems, opened and checked; its profile."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from tabi_bench import device, registry
from tabi_bench.cascade.pruning import prune_query
from tabi_bench.config import Config
from tabi_bench.engines import make_engine
from tabi_bench.planning import plan_file
from tabi_bench.planning.overhead import with_overheads
from tabi_bench.profiling.lab import Lab, engine_key
from tabi_bench.profiling.profile import Profile
from tabi_bench.records.ledger import Ledger
from tabi_bench.records.provenance import config_hash
from tabi_bench.serving.scenario import Scenario
from tabi_bench.system import Plan, System
from tabi_bench.tasks import load_task
from tabi_bench.tasks.folds import two_folds
from tabi_bench.zoo import load_zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """What a session knows once data, models and engine are there. systems: by method, the reference's first."""

    config: Config
    systems: dict[str, type[System]]
    lab: Lab
    scenario: Scenario
    ledger: Ledger
    given: dict[str, Plan]  # a plan from a file, by its method


def open_session(config: Config) -> Session:
    """Engine, data, models and systems of a session, checked; `session.lab.engine` is to be closed."""
    if config.plan is not None:
        plan_file.load_plan(Path(config.plan))  # a damaged one is refused before models are made
    engine = make_engine(config.engine)
    scenario = registry.load(config.scenario.code)(config.scenario, config.seed, engine.device)
    task = load_task(config.task, config.source, config.seed)
    two_folds(task.labels("validation"), config.seed)  # refuses too few before models are made
    log.info("%s: %d train, %d validation rows (%s)", task.name, len(task.train), len(task.validation), task.source)
    cache_dir = Path(config.cache_dir).expanduser()
    zoo = load_zoo(config.zoo, task, cache_dir, config.seed, engine.device)
    zoo = zoo.with_int8 if config.engine.adds_int8 else zoo
    systems = registry.system_classes(config.systems)
    for method, system in systems.items():
        system.check(config.systems[method], zoo.names)
    how = config.scenario
    lab = Lab(task, zoo, engine, cache_dir, config.seed, how.profile_rounds, how.batches, how.mixed)
    facts = device.describe(engine.device)
    contents = (task.content_hash, [(m.name, m.content_hash) for m in zoo.models], engine_key(engine), facts["name"])
    given = {}
    if config.plan is not None:  # its options are those that it was made with
        name = config.method.name
        given[name], options = plan_file.given_plan(Path(config.plan), lab, systems[name], config.method)
        config = replace(config, method=options, systems=config.systems | {name: options})
    ledger = Ledger(config, config_hash(config, list(systems), *contents), facts, engine.dtype)
    return Session(config, systems, lab, scenario, ledger, given)


def importance_options(config: Config) -> list[str]:
    """The importance options that some system of the session may read."""
    return sorted({option for options in config.systems.values() for option in options.importance_options})


def measure_profile(session: Session) -> Profile:
    """What is known offline of all models, on all validation rows."""
    config, lab = session.config, session.lab
    profile: Profile = with_overheads(
        lab.profile(importance_options(config), prune_query), lab, importance_options(config)
    )
    for method, system in session.systems.items():
        profile = system.prepare(lab, profile, config.systems[method])
    return profile

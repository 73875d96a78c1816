"""A session's plan made ready for a program of one's own: tuned again, on all labelled rows.

    python -m tabi_bench.export outputs/adhoc/RUN DIR [--models]

DIR then holds plan.json, an example that runs, and with --models the models too; those that ship with this package are
never needed. There is no report split: how good the plan is, the session told, on rows that its plans had not seen.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tabi_bench.cache import write_atomically
from tabi_bench.cascade.calibration import fit_temperature
from tabi_bench.cascade.point import Point
from tabi_bench.cascade.replay import first_confidences
from tabi_bench.cascade.system import Cascade
from tabi_bench.classifier import PACKAGE, without_bars
from tabi_bench.config import from_record
from tabi_bench.planning.folds import target_on
from tabi_bench.planning.plan_file import fingerprint, save_plan
from tabi_bench.profiling.profile import Profile
from tabi_bench.records.record import Record
from tabi_bench.session import Session, measure_profile, open_session
from tabi_bench.system import Deployment, FoldPlan, ModelSource, Plan, PlanError
from tabi_bench.zoo.base import ModelSpec

PLACED = ("name", "code", "device", "dtype", "cache_dir")  # settings of an engine that are told elsewhere, or are local
NOTE = "tuned on all labelled rows: there is no report split, so `predicted` is not an estimate for new queries"
EXAMPLE = '''"""Answers a few texts by the plan in this folder."""

from pathlib import Path

from tabi_bench import load

classify = load(Path(__file__).parent)
print(classify({text!r}))
print(classify({texts!r}))
'''


def export(run: Path, folder: Path, with_models: bool = False) -> Path:
    """Writes plan.json and example.py into `folder`; the path of the plan. run: a session's folder of one method.

    Raises PlanError, and ValueError or OSError for what is no such folder.
    """
    record = Record.load(run)
    if record.status != "ok":
        raise PlanError(f"{run}: the run is {record.status} ({record.error}); there is no plan to export")
    config = replace(from_record(record.config, record.method), plan=str(run / "plan.json"))
    session = open_session(config)  # which refuses other data, models or engine than the run's
    try:
        system = session.systems[record.method]
        if not issubclass(system, Cascade):
            raise PlanError(f"{run}: only cascades, and models alone, can be exported; {record.method} is neither")
        profile = measure_profile(session)
        fold = system.plan(profile, target_on(profile, config, config.search.margin_se), config.systems[record.method])
        plan = _plan(session, profile, fold, folder if with_models else None)
    finally:
        session.lab.engine.close()
    save_plan(plan, folder / "plan.json")
    texts = [query.texts if len(query.texts) > 1 else query.texts[0] for query in session.lab.task.queries[:2]]
    write_atomically(folder / "example.py", EXAMPLE.format(text=texts[0], texts=texts))
    return folder / "plan.json"


def _plan(session: Session, profile: Profile, fold: FoldPlan, copies: Path | None) -> Plan:
    """The plan of one operating point. copies: the folder that is to hold the models too."""
    config, lab = session.config, session.lab
    point = Point(**fold.point)
    if len(point.models) == 1 and not profile.is_regression:  # alone it needs none, but its confidence is handed out
        logits = profile.models[point.models[0]].logits
        point = replace(point, temperatures=[fit_temperature(logits, profile.labels)])
        fold = replace(fold, point=point.plain())
    settings = {k: v for k, v in asdict(config.engine).items() if k not in PLACED}
    deployment = Deployment(
        note=NOTE,
        metric=profile.metric,
        columns=list(lab.task.config.texts),
        models=_sources([lab.zoo[name] for name in point.models], copies),
        engine=settings,
        confidences=np.quantile(first_confidences(point, profile), np.linspace(0, 1, 101)).tolist(),
        usd_per_hour=config.cost.usd_per_hour,
    )
    made_for, options = fingerprint(lab.task, lab.zoo, lab.engine), asdict(config.method)
    return Plan(config.method.name, lab.task.name, [fold], config.seed, made_for, options, deployment)


def _sources(specs: Sequence[ModelSpec], copies: Path | None) -> dict[str, ModelSource]:
    """Where each model lies; in `copies`, each folder is put there first, once for a model in float32 and in int8."""
    if copies is None:
        return {spec.name: _source(spec, _place(spec.path.resolve())) for spec in specs}
    names = {spec.path.resolve(): spec.name for spec in reversed(specs)}
    for folder, name in names.items():
        target = copies / "models" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return {spec.name: _source(spec, {"beside": f"models/{names[spec.path.resolve()]}"}) for spec in specs}


def _place(folder: Path) -> ModelSource:
    if folder.is_relative_to(PACKAGE):
        return {"package": folder.relative_to(PACKAGE).as_posix()}
    return {"folder": str(folder)}


def _source(spec: ModelSpec, place: ModelSource) -> ModelSource:
    order, scale = list(spec.label_order or ()) or None, list(spec.scale or ()) or None
    return {"label_order": order, "scale": scale, "max_length": spec.max_length, "int8": spec.int8, **place}


def main(argv: list[str] | None = None) -> None:
    """Exports a run's plan."""
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.export", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of one method's record, as outputs/adhoc/mnli-tabi-...")
    parser.add_argument("dir", type=Path, help="where to write plan.json and example.py")
    parser.add_argument("--models", action="store_true", help="copy the models too, to move the folder elsewhere")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname).1s %(message)s")
    try:
        with without_bars():
            plan = export(options.run, options.dir, options.models)
    except (PlanError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(f"{plan}: {NOTE}\nTry it: python {options.dir / 'example.py'}")
    print(f"On your own traffic: python -m tabi_bench.traffic {plan} FILE")


if __name__ == "__main__":
    main()

"""From YAML files and overrides to one checked `Config`: the values stand in YAML, types and bounds in the schemas.

Hydra composes without a schema; here each part meets the dataclass of what was chosen (registry.TABLE, or what a YAML
file of one's own names). What the choice does not have, or does not read beside the others, is refused by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from tabi_bench import registry
from tabi_bench.config.fields import ConfigError, check_bounds, settings
from tabi_bench.config.method import CascadeConfig, ControlConfig, MethodConfig
from tabi_bench.config.session import Config
from tabi_bench.config.task import TaskConfig
from tabi_bench.config.zoo import PaperZooConfig

GROUPS = ("task", *registry.TABLE)
OPEN = (*GROUPS, "systems", "target", "search", "certify", "cost")  # Hydra takes any key here: it is checked below
PARTS = ("source", "zoo", "engine", "scenario")  # what checks itself; methods are checked for each system
NOT_SETTINGS = ("name", "code", "cascade")  # of the fields of a schema


def conf_dir() -> Path:
    """The folder `conf`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def default_cache_dir() -> Path:
    """The cache where nobody names another: TABI_BENCH_CACHE, else tabi-bench below XDG_CACHE_HOME or ~/.cache."""
    return Path(_load(conf_dir() / "config.yaml").cache_dir).expanduser()


def register() -> None:
    """Tells Hydra that the parts of the configuration take any key: we refuse unknown ones better than it does."""
    from hydra.core.config_store import ConfigStore

    # Hydra copies the store with each file that it reads, and only reads it
    setattr(ConfigStore, "__deepcopy__", lambda store, _memo: store)  # noqa: B010
    parts = {part: OmegaConf.create({}, flags={"struct": False}) for part in OPEN}
    ConfigStore.instance().store(name="open", node=OmegaConf.create(parts))


def compose_config(overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """The checked configuration of `run.py OVERRIDES`; config_dir: a folder of one's own. Raises ConfigError."""
    from hydra import compose, initialize_config_dir

    register()
    own = [f"hydra.searchpath=[file://{config_dir.absolute()}]"] if config_dir else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        raw = compose("config", overrides=[*own, *overrides], return_hydra_config=True)
    return from_dict_config(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"]), raw.hydra)


def from_dict_config(raw: DictConfig, hydra: DictConfig) -> Config:
    """The composed configuration as one `Config`, checked; hydra: Hydra's own part. Raises ConfigError."""
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    files = Files(list(dict.fromkeys([conf_dir(), *folders])), raw)
    own = map(str, files.folders[1:])
    sys.path += [folder for folder in own if folder not in sys.path]  # their code lies beside them
    with _in_one_sentence("", "the configuration"):
        values = _plain(raw)
    for part in OPEN:
        _refuse_scalar(part, values.get(part))
    for group in GROUPS:
        if "name" not in values[group]:
            raise ConfigError(f"a session needs a {group}: {group}=NAME chooses one")
        name = values[group]["name"]
        if group != "task" and name != hydra.runtime.choices[group]:
            raise ConfigError(f"{group}.name={name!r}: the name is that of the file; choose with {group}=NAME")
    parts: dict[str, Any] = {group: _node(group, values.pop(group)) for group in GROUPS if group != "method"}
    parts["systems"], parts["method"] = _systems(values, files, [key.split("=")[0] for key in hydra.overrides.task])
    with _in_one_sentence("", "the configuration"):
        config = cast(Config, OmegaConf.to_object(_merged(OmegaConf.structured(Config), values, parts)))
    if config.target.kind is None:
        config.target.kind = _target_kind(config)
    _check(config)
    _refuse_unread(config, files, hydra.runtime.choices)
    return config


def from_record(values: Mapping[str, Any], method: str) -> Config:
    """The configuration of one method of a session, from the `config` of its record. Raises ConfigError.

    Settings of a choice of one's own are known only where its base has them.
    """
    plain = {key: value for key, value in values.items() if key != "method"}
    try:
        options = plain.pop("systems")[method]
        parts = {group: _typed(group, plain.pop(group)) for group in GROUPS if group != "method"}
        node = _typed("method", options)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"the record does not say how it was made ({error}); measure it again") from None
    plain |= {"compare": [method], "overwrite": False, "prepare": False}
    with _in_one_sentence("", "a session"):
        whole = _merged(OmegaConf.structured(Config), plain, parts, {"method": node, "systems": {method: node}})
        return cast(Config, OmegaConf.to_object(whole))


def _typed(group: str, values: dict[str, Any]) -> DictConfig:
    row = registry.TABLE.get(group, {}).get(values["name"])
    schema = TaskConfig if group == "task" else registry.load(row.schema if row else registry.BASES[group])
    with _in_one_sentence(group, f"{group}={values['name']}"):
        return _merged(OmegaConf.structured(schema), values)


def read_file(group: str, choice: str, overrides: Sequence[str] = (), /, **values: Any) -> Any:
    """One file of `conf/` as its dataclass, without composing the rest.

    overrides: "key=value" within the file; values: the same as Python values. Raises ConfigError.
    """
    files = Files([conf_dir()], _load(conf_dir() / "config.yaml"))
    raw = files.raw(group, choice)
    changed = _merged(raw, OmegaConf.from_dotlist(list(overrides)), values)
    plain = files.resolved(changed)
    if "stands_on" in raw:
        plain.setdefault("cascade", asdict(read_file(group, plain["stands_on"])))
    node = _node(group, plain)
    with _in_one_sentence(group, f"{group}={choice}"):
        options = OmegaConf.to_object(node)
    check_bounds(options, f"{group}.")
    return options


def _plain(config: Any) -> Any:
    """Its values as dictionaries and lists."""
    return OmegaConf.to_container(config, resolve=True)


def _merged(*configs: Any) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(*configs))


def _load(file: Path) -> DictConfig:
    """A YAML file, not to be changed in place."""
    return _load_version(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _load_version(file: Path, _changed_ns: int) -> DictConfig:
    return cast(DictConfig, OmegaConf.load(file))


@dataclass(frozen=True)
class Files:
    """The YAML files of choices: of `conf/` first, then of the user's own folders."""

    folders: list[Path]
    root: DictConfig  # the whole configuration

    def raw(self, group: str, name: str) -> DictConfig:
        """The values of a choice. Files of one's own may begin with `defaults: [another choice, _self_]`."""
        there = [place for folder in self.folders if (place := folder / group / f"{name}.yaml").is_file()]
        if not there:
            raise ConfigError(f"unknown {group} {name!r}; there are: {', '.join(choices(group, self.folders))}")
        if len(there) > 1:
            raise ConfigError(f"{there[1]}: {group} {name!r} is taken; rename yours")
        raw = _load(there[0]).copy()
        above = [entry for entry in raw.pop("defaults", []) if entry != "_self_"]
        return _merged(*(self.raw(group, entry) for entry in above), raw)

    def values(self, group: str, name: str) -> dict[str, Any]:
        """The same as plain values."""
        return self.resolved(self.raw(group, name))

    def resolved(self, raw: DictConfig) -> dict[str, Any]:
        """Plain values of a part, what refers to other settings resolved."""
        return _plain(OmegaConf.create(raw, parent=self.root))


def choices(group: str, folders: Sequence[Path]) -> list[str]:
    """All choices of a group that lie in these folders."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _node(group: str, values: dict[str, Any], path: str = "") -> DictConfig:
    """Values as the typed node of their choice; `path` is where the user set them."""
    schema, code = _schema(group, values)
    known = {key: value for key, value in values.items() if key not in ("code", "schema")}
    for one in fields(schema):
        if str(one.type).startswith("list") and isinstance(known.get(one.name), str | int | float):
            known[one.name] = [known[one.name]]  # zoo.paths=DIR is understood
    with _in_one_sentence(path or group, f"{group}={values['name']}"):
        return _merged(OmegaConf.structured(schema), known, code)


def _schema(group: str, values: dict[str, Any]) -> tuple[type, dict[str, str]]:
    """Schema and {"code": code} of a choice: of the table, or named in the user's file. A task has no code."""
    if group == "task":
        return TaskConfig, {}
    name, base = values["name"], registry.load(registry.BASES[group])
    row = registry.TABLE[group].get(name)
    if row is not None:
        if set(values) & {"code", "schema"}:
            raise ConfigError(f"{group}.code: {group} {name!r} ships with its code; give yours a name of its own")
        return registry.load(row.schema), {"code": row.code}
    if "code" not in values:
        raise ConfigError(f"{group} {name!r}: its YAML file needs code: module:attribute")
    try:
        registry.load(values["code"])
        schema = registry.load(values["schema"]) if "schema" in values else base
    except ValueError as error:
        raise ConfigError(f"{group} {name!r}: {error}") from None
    if not (isinstance(schema, type) and issubclass(schema, base)):
        raise ConfigError(f"{group} {name!r}: schema {values['schema']} must be a dataclass based on {base.__name__}")
    return schema, {"code": values["code"]}


@contextmanager
def _in_one_sentence(path: str, what: str) -> Iterator[None]:
    """OmegaConf's errors as a ConfigError that names the setting, and for an unknown one what there is."""
    try:
        yield
    except OmegaConfBaseException as error:
        name = ".".join(filter(None, (path, str(error.full_key or ""))))
        reason = f"{name}: {str(error).splitlines()[0]}"
        if isinstance(error, ConfigKeyError | ConfigAttributeError):
            names = [f.name for f in fields(cast(Any, error.object_type)) if f.name not in NOT_SETTINGS]
            reason = f"unknown setting {name}; {what} has: {', '.join(names) or 'none'}"
        elif isinstance(error, MissingMandatoryValue):
            reason = f"{name} has no value; set it"
        raise ConfigError(reason) from None


def _refuse_scalar(part: str, value: Any) -> None:
    if isinstance(value, dict):
        return
    if part == "target" and isinstance(value, int | float):
        raise ConfigError(f"target={value}: write target.kind=absolute target.value={value}")
    raise ConfigError(f"{part}={value}: it has settings of its own, as {part}.key=value")


# --- the systems of a session -----------------------------------------------------------------------------------------


def _systems(values: dict[str, Any], files: Files, overridden: list[str]) -> tuple[dict[str, DictConfig], DictConfig]:
    """The options of each compared system in serving order, and those of `method=`.

    Takes `method` and `systems` out of `values`; overridden: keys of the user's overrides.
    """
    chosen, given = values.pop("method"), values.pop("systems")
    for name, options in given.items():
        _refuse_scalar(f"systems.{name}", options)
    values["compare"] = compare = _compared(values["compare"], files)
    name = chosen["name"]
    default = files.values("method", name)
    changed = [f"method.{key}" for key, value in chosen.items() if value != default.get(key)]
    if changed and name in given:
        raise ConfigError(f"{changed[0]} and systems.{name} are both set; set all of {name} in one of them")
    raw = {m: files.values("method", m) for m in compare if m != registry.REFERENCE_AGAIN}
    raw |= {m: files.values("method", m) for m in _stood_on(raw, given)}
    for system in given:
        if system not in raw:
            raise ConfigError(f"systems.{system} is set, but no system of compare={compare} reads it")
    if name in raw:
        raw[name] = chosen
    elif changed or "method" in overridden:
        raise ConfigError(f"{changed[0] if changed else 'method'} is set, but compare={compare} leaves {name} out")
    nodes = {m: _options(m, raw, given, "method" if m == name else f"systems.{m}") for m in raw}
    nodes[registry.REFERENCE_AGAIN] = _merged(nodes[compare[0]], {"code": registry.AGAIN})
    return {m: nodes[m] for m in compare}, nodes.get(name) or _node("method", chosen)


def _compared(compare: Any, files: Files) -> list[str]:
    """The names of the systems, each once."""
    if not isinstance(compare, list) or not compare:
        raise ConfigError(f"compare={compare}: a list of methods, the reference first, as [infaas,tabi]")
    known = [*choices("method", files.folders), registry.REFERENCE_AGAIN]
    for name in compare:
        if name not in known:
            raise ConfigError(f"compare names an unknown method {name!r}; there are: {', '.join(known)}")
    if compare[0] == registry.REFERENCE_AGAIN:
        raise ConfigError(f"compare={compare}: {registry.REFERENCE_AGAIN} serves the first system once more")
    return list(dict.fromkeys(compare))


def _stood_on(raw: dict[str, dict[str, Any]], given: dict[str, Any]) -> set[str]:
    """Names of the cascades that controls among these stand on."""
    values = [options | given.get(name, {}) for name, options in raw.items()]
    return {str(options["stands_on"]) for options in values if "stands_on" in options} - set(raw)


def _options(name: str, raw: dict[str, Any], given: dict[str, Any], path: str) -> DictConfig:
    """The typed options of one system; a control's hold those of the cascade that it stands on."""
    values = _plain(_merged(raw[name], given.get(name, {})))
    base = values.get("stands_on")
    if base is None:
        return _node("method", values, path)
    if "cascade" in values:
        raise ConfigError(f"{path}.cascade: {name} stands on {base}; set systems.{base}")
    cascade = _options(base, raw, given, f"systems.{base}")
    if not issubclass(cast(type, OmegaConf.get_type(cascade)), CascadeConfig):
        raise ConfigError(f"{path}.stands_on={base}: it is no cascade")
    return _node("method", values | {"cascade": cascade}, path)


# --- checks of the whole ----------------------------------------------------------------------------------------------


def _target_kind(config: Config) -> str:
    """The paper's own targets for the paper's models, where it has one; else relative to this ladder."""
    papers = isinstance(config.zoo, PaperZooConfig) and not config.zoo.random_weights
    return "paper" if papers and config.task.paper_target is not None and config.target.slack is None else "relative"


def _check(config: Config) -> None:
    check_bounds(config)
    _check_target(config)
    if config.task.is_regression and config.task.labels:
        raise ConfigError(f"task.labels={config.task.labels}: metric {config.task.metric} is of scores; set labels=[]")
    for group in PARTS:
        getattr(config, group).check(config, group)
    for path, options in _systems_by_path(config):
        check_bounds(options, f"{path}.")
        options.check(config, path)
    for key, place in (("results_dir", config.results_dir), ("cache_dir", config.cache_dir)):
        if not place.strip() or "\0" in place:
            raise ConfigError(f"{key}={place!r}: name a folder")
        try:
            Path(place).expanduser()
        except RuntimeError:
            raise ConfigError(f"{key}={place}: no such home directory; name a folder") from None
    _check_plan(config)


def _check_target(config: Config) -> None:
    if config.target.kind == "absolute" and config.target.value is None:
        raise ConfigError("target.kind=absolute needs target.value, the score to reach as a fraction (e.g. 0.9)")
    if config.target.kind == "paper" and config.task.paper_target is None:
        raise ConfigError(f"target.kind=paper: the paper has no target for task {config.task.name!r}")
    for key, value, kind in (("value", config.target.value, "absolute"), ("slack", config.target.slack, "relative")):
        if value is not None and config.target.kind != kind:
            raise ConfigError(f"target.{key}={value} is for target.kind={kind}, but target.kind={config.target.kind}")


def _check_plan(config: Config) -> None:
    """A plan is for `method`, and is there before any work is done."""
    if config.plan is None:
        return
    if config.method.name not in config.compare:
        raise ConfigError(f"plan is for method={config.method.name}, which compare={config.compare} leaves out")
    if not Path(config.plan).expanduser().is_file():
        raise ConfigError(f"plan={config.plan}: no such file; it is the plan.json beside a record")


def _systems_by_path(config: Config) -> Iterator[tuple[str, MethodConfig]]:
    """The options of every system and of the cascades below controls, each with where the user sets them."""
    for name, options in config.systems.items():
        if name != registry.REFERENCE_AGAIN:
            yield "method" if name == config.method.name else f"systems.{name}", options
        if isinstance(options, ControlConfig) and options.stands_on not in config.systems:
            yield f"systems.{options.stands_on}", options.cascade


def _refuse_unread(config: Config, files: Files, choices: Mapping[str, str]) -> None:
    """What nothing reads beside the other settings must stand as it does in YAML."""
    for path, options in _systems_by_path(config):
        _refuse_changed(path, options, files.raw("method", options.name), options.unread(config))
    unread = _unread(config)
    for group in PARTS:
        unread |= getattr(config, group).unread(config)
    for path, why in unread.items():
        group, _, key = path.partition(".")
        raw = files.raw(group, choices[group]) if group in GROUPS else _load(conf_dir() / "config.yaml")[group]
        _refuse_changed(group, getattr(config, group), raw, {key: why})


def _refuse_changed(path: str, owner: Any, default: DictConfig, reasons: Mapping[str, str]) -> None:
    for key, why in reasons.items():
        value, standard = attrgetter(key)(owner), OmegaConf.select(default, key)
        if value != (_plain(standard) if OmegaConf.is_config(standard) else standard):
            raise ConfigError(f"{path}.{key}={value} would not be read: {why}")


def _unread(config: Config) -> dict[str, str]:
    """Settings that no system, target or plan of the session reads, and why."""
    unread: dict[str, str] = {}
    if not any(isinstance(options, CascadeConfig) for options in config.systems.values()):
        unread |= dict.fromkeys(("certify.epsilon", "search.verify"), f"compare={config.compare} has no cascade")
    if config.certify.epsilon is None:
        unread["certify.delta"] = "certify.epsilon=null asks for no certificate"
    if config.target.slack is not None:
        unread["task.slack"] = "target.slack is set"
    elif config.target.kind != "relative":
        unread["task.slack"] = "the target does not follow from it"
    if config.target.kind != "paper":
        unread["task.paper_target"] = f"target.kind={config.target.kind}"
    if config.plan is not None:
        free = (*NOT_SETTINGS, *config.method.read_when_served)
        held = [name for name, _, _ in settings(config.method) if name.split(".")[0] not in free]
        unread |= {f"method.{name}": "the plan holds it" for name in held}
    return unread

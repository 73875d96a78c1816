"""`zoo=custom`: your own fine-tuned models, folders or hub ids, of any supported family.

A folder may hold what `save_pretrained` writes, or what older checkpoints hold (pytorch_model.bin, vocab.txt,
spm.model): the latter is converted once, into the cache. Label order and scale are measured (labels.py).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

from tabi_bench.cache import cached, content_key, file_sha256
from tabi_bench.config import CustomZooConfig, ZooConfig
from tabi_bench.hub import fetch
from tabi_bench.names import printable
from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import FROM_FOLDER, ModelSpec, Zoo
from tabi_bench.zoo.checks import check_model, naming, read_config, refuse_pointer, shards
from tabi_bench.zoo.families import family
from tabi_bench.zoo.families.sentencepieces import first_difference, raw_model
from tabi_bench.zoo.labels import checked
from tabi_bench.zoo.loading import ModelError, load_folder, spec_of

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
OTHER_FILES = (
    "config.json", "model.safetensors.index.json", *VOCABULARIES, "tokenizer_config.json", "merges.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
SAFE, PICKLED = ("model*.safetensors",), ("pytorch_model*.bin", "pytorch_model.bin.index.json")
COMPARED = 2000  # rows of train on which a converted tokenizer is compared with sentencepiece
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def load(config: CustomZooConfig, task: Task, cache_dir: Path, seed: int, device: str) -> Zoo:
    """The models of `zoo.paths` on `task`, smallest first. Raises ModelError, and hub.HubError."""
    names, sources = _names(config.paths), [locate(entry) for entry in config.paths]
    specs = [described(s, name, config, task, cache_dir) for name, s in zip(names, sources, strict=True)]
    measured = [checked(spec, task, cache_dir, seed, device) for spec in specs]
    notes = {
        name: {"from": entry, "folder": source.name, **asdict(finding)}
        for name, entry, source, (_, finding) in zip(names, config.paths, sources, measured, strict=True)
    }
    models = sorted((spec for spec, _ in measured), key=lambda spec: spec.params)
    return Zoo(config.name, tuple(models), notes={"checkpoints": notes})


def _names(paths: list[str]) -> list[str]:
    """The last part of each path or id; with the part before it where two are alike."""
    whole = [str(Path(path).absolute()) if path and Path(path).is_dir() else path.split("@")[0] for path in paths]
    parts = [[printable(part) for part in path.split("/") if part not in ("", ".", "..")] for path in whole]
    if not all(parts):
        raise ModelError(f"zoo.paths={paths}: each is to name a folder of a model, or a hub id as owner/name@revision")
    last = Counter(part[-1] for part in parts)
    names = [part[-1] if last[part[-1]] == 1 else "-".join(part[-2:]) for part in parts]
    if len(set(names)) < len(names):
        raise ModelError(f"zoo.paths: two models are called {Counter(names).most_common(1)[0][0]}; rename a folder")
    return names


def locate(entry: str, where: str = "zoo.paths") -> Path:
    """The folder of a local path or of a hub id, `owner/name` or `owner/name@revision`. Raises ModelError, HubError."""
    try:
        path = Path(entry).expanduser()
    except RuntimeError:
        raise ModelError(f"{where}: {entry}: no such home directory; name a folder") from None
    if path.is_dir():
        return path
    match = HUB_ID.fullmatch(entry)
    if match is None:
        raise ModelError(f"{where}: no folder {path.absolute()}; give a folder, or a hub id as owner/name@revision")
    return download(match["repo"], match["revision"])


def download(repo: str, revision: str | None) -> Path:
    """A model's files from the hub; pickled weights only where it has no safetensors."""
    folder = fetch(repo, revision, [*OTHER_FILES, *SAFE])
    if not any(folder.glob(SAFE[0])):
        fetch(repo, revision or folder.name, [*OTHER_FILES, *PICKLED])
    return folder


def usable(folder: Path, cache_dir: Path) -> Path:
    """`folder` itself if it has safetensors and a tokenizer.json, else a converted copy in the cache."""
    if any(folder.glob(SAFE[0])) and (folder / "tokenizer.json").is_file():
        return folder
    read_config(folder)
    every = {path for pattern in (*OTHER_FILES, *SAFE, *PICKLED) for path in folder.glob(pattern)}
    files = sorted(filter(Path.is_file, every))
    key = content_key("converted", 2, [(path.name, file_sha256(path)) for path in files])
    return cached(Path(cache_dir) / "converted" / key, lambda temporary: _convert(folder, temporary))


def _convert(folder: Path, target: Path) -> None:
    weights = [path for pattern in (*SAFE, *PICKLED) for path in folder.glob(pattern)]
    if not weights:
        raise ModelError(f"{folder} has no weights (model.safetensors or pytorch_model.bin)")
    for file in weights:
        refuse_pointer(file)
    for index in folder.glob("*.index.json"):
        shards(index)
    write_tokenizer(folder, target / "tokenizer.json")
    load_folder(folder, "auto").save_pretrained(target)


def described(source: Path, name: str, config: ZooConfig, task: Task, cache_dir: Path) -> ModelSpec:
    """The model in a folder of whatever layout, which is whole and fits `task`. Raises ModelError."""
    spec = spec_of(usable(source, cache_dir), name, config.max_length)
    check_model(spec, task)
    compare_tokens(source, spec, task)
    return spec


def compare_tokens(source: Path, spec: ModelSpec, task: Task) -> None:
    """Refuses a tokenizer that was made of a sentencepiece model and differs from it on train. Raises ModelError."""
    if (model := raw_model(source)) is None:
        return
    texts = list(dict.fromkeys(text for row in task.texts("train")[:COMPARED] for text in row))
    tokenizer, adapter = Tokenizer.from_file(str(spec.path / "tokenizer.json")), family(spec.family)
    row = first_difference(tokenizer, model, texts, [adapter.plain_text(text) for text in texts])
    if row is not None:
        raise ModelError(
            f"{source}: the tokenizer made of {model.name} splits {texts[row][:60]!r} of train otherwise than "
            f"sentencepiece does; put the model's own tokenizer.json beside it"
        )


def write_tokenizer(folder: Path, file: Path) -> None:
    """The tokenizer of `folder` as `file`. Raises ModelError.

    Without a vocabulary the library would make an empty one and say nothing.
    """
    from transformers import AutoTokenizer

    if (folder / "tokenizer.json").is_file():
        file.write_bytes((folder / "tokenizer.json").read_bytes())
        return
    if not any(path.is_file() for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json, vocab.txt, vocab.json or a sentencepiece model)")
    advice = "sentencepiece models need pip install 'tabi-bench[paper]'"
    with naming(folder, f"no tokenizer.json can be made of what is there; {advice}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)
        adapter = family(read_config(folder)["model_type"])
        adapter.mend_tokenizer(folder, tokenizer.backend_tokenizer).save(str(file))

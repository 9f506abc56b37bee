"""No Valkey outlives its test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes import Node


@pytest.fixture(autouse=True)
def _no_node_is_left(folder: Path) -> Iterator[None]:
    yield  # before the folder goes
    while Node.started:
        Node.started.pop().close()

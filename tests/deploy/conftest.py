"""What Kustomize makes of the base and its components."""

import functools

import pytest

from tests.deploy.manifests import Render, rendering


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """What is rendered is the same for all tests, which do not change it."""
    return functools.cache(rendering(tmp_path_factory.mktemp("rendered")))

"""What Kustomize makes of the base and its components."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy import test_kubernetes as base
from tests.deploy.validation import Resource

Render = Callable[..., dict[str, Resource]]

CANARY_IMAGE = "  - {name: friendlyhello-canary, newName: friendlyhello, newTag: 9.9.9}\n"


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Render the base with components, as a user does who lists them in kustomization.yaml."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: what kustomize renders was not looked at")

    numbers = itertools.count()

    def render(*names: str) -> dict[str, Resource]:
        folder = shutil.copytree(base.BASE, tmp_path / f"base-{next(numbers)}")
        (folder / "redis-password.txt").write_text("secret\n")
        listed = "".join(f"  - components/{name}\n" for name in names)
        text = (folder / "kustomization.yaml").read_text()
        images = text.index("# On every object")
        (folder / "kustomization.yaml").write_text(
            f"{text[:images]}{CANARY_IMAGE}{text[images:]}{listed and 'components:'}\n{listed}"
        )
        done = base.kustomize(folder)
        assert done.returncode == 0, done.stderr
        return base.load(done.stdout)

    return render

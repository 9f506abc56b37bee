"""What ``deploy/kubernetes`` holds, and what Kustomize makes of it."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.waiting import PATIENCE

Resource = dict[str, Any]
Place = tuple[str | int, ...]

BASE = ROOT / "deploy" / "kubernetes"
COMPONENTS = BASE / "components"

#: The one in C takes an eighth of the time, where it is installed.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_all(text: str) -> list[Any]:
    return list(yaml.load_all(text, LOADER))


def load(text: str) -> dict[str, Resource]:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in load_all(text)}


KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())

#: The components as kustomization.yaml lists them, which is the order in which they go together.
LISTED = re.findall(r"^#   - components/(.*)$", (BASE / "kustomization.yaml").read_text(), re.M)

RESOURCES = {
    name: resource
    for file in KUSTOMIZATION["resources"]
    for name, resource in load((BASE / file).read_text()).items()
}
WEB, REDIS = RESOURCES["Deployment/web"], RESOURCES["StatefulSet/redis"]


def pod(resource: Resource) -> Resource:
    return resource["spec"]["template"]["spec"]


def container(resource: Resource) -> Resource:
    (only,) = pod(resource)["containers"]
    return only


def environment(resource: Resource) -> dict[str, Any]:
    """The variables that have a value; the others are taken from somewhere."""
    return {one["name"]: one["value"] for one in container(resource)["env"] if "value" in one}


def job_of(metric: Resource) -> Resource:
    """Return the Job that a metric of an AnalysisTemplate makes."""
    spec = metric["provider"]["job"]["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "made"}}
    return job | {"spec": spec}


def places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a resource, and the path to it."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(resource: Resource, path: Place, *value: Any) -> Resource:
    """A copy that has this value there, or none."""
    *way, last = path
    place: Any = (copy := deepcopy(resource))
    for step in way:
        place = place[step]
    if value:
        (place[last],) = value
    else:
        del place[last]
    return copy


def kustomize(base: Path) -> subprocess.CompletedProcess[str]:
    """Render a folder; skip the test where nothing is installed that does."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: what kustomize renders was not looked at")
    return subprocess.run(
        ["kubectl", "kustomize", str(base)], capture_output=True, text=True, timeout=PATIENCE
    )


CANARY_IMAGE = "  - {name: friendlyhello-canary, newName: friendlyhello, newTag: 9.9.9}\n"


@cache
def render(*names: str, of: Path = BASE) -> dict[str, Resource]:
    """Render a base with components, as a user does who lists them in kustomization.yaml.

    What is rendered is the same for all tests, which do not change it.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = shutil.copytree(of, Path(folder, "base"))
        (base / "redis-password.txt").write_text("secret\n")
        listed = "".join(f"  - components/{name}\n" for name in names)
        before, marked, after = (base / "kustomization.yaml").read_text().partition("# Labels of")
        (base / "kustomization.yaml").write_text(
            f"{before}{CANARY_IMAGE}{marked}{after}{listed and 'components:'}\n{listed}"
        )
        done = kustomize(base)
        assert done.returncode == 0, done.stderr
        return load(done.stdout)


def is_restricted(resource: Resource) -> None:
    """By https://kubernetes.io/docs/concepts/security/pod-security-standards/, and further.

    It leaves open whether the root file system is read-only.
    """
    whole, own = pod(resource)["securityContext"], container(resource)["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole.get("runAsUser", 1) > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {sysctl["name"] for sysctl in whole.get("sysctls", ())} <= {
        "net.ipv4.ip_unprivileged_port_start"  # a safe one
    }
    assert not pod(resource).keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    sources = {"name", "secret", "configMap"}
    assert all(volume.keys() <= sources for volume in pod(resource).get("volumes", ()))
    assert pod(resource)["automountServiceAccountToken"] is False

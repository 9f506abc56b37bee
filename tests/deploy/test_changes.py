"""Components can be added to a base that runs, and removed from it, in any order."""

import json
import re
from collections import defaultdict
from itertools import combinations

import pytest

from tests.deploy.changes import unchangeable
from tests.deploy.manifests import LISTED, RESOURCES, Place, Render, Resource, changed, places

#: What a component must have before it.
NEEDS = {"canary": ["gateway"]}


def states(*sizes: int) -> list[tuple[str, ...]]:
    """Each set of so many components, as kustomization.yaml lists them."""
    found = set()
    for size in sizes:
        for names in combinations(LISTED, size):
            wanted = {*names, *(need for name in names for need in NEEDS.get(name, ()))}
            found.add(tuple(name for name in LISTED if name in wanted))
    return sorted(found)


# The base, each component, each two of them, and all: what differs between any two sets of
# components differs between two of these, as each component changes what it changes alone or
# because of another one.
@pytest.mark.parametrize(
    "sizes",
    [
        (0, len(LISTED)),
        pytest.param((0, 1, 2, len(LISTED)), marks=pytest.mark.slow),
    ],
    ids=["all", "each two"],
)
def test_each_set_of_components_can_follow_each_other(
    sizes: tuple[int, ...], render: Render
) -> None:
    # An object that a component leaves behind stays as it was, so every two sets are compared.
    seen: dict[str, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    for state in states(*sizes):
        for name, resource in render(*state).items():
            seen[name][json.dumps(unchangeable(resource), sort_keys=True)].append(state)
            is_kept_as_it_is_given(name, resource)
            for claim in resource.get("spec", {}).get("volumeClaimTemplates", ()):
                assert claim["metadata"].keys() == {"name"}, "a release would change its label"
    assert {"StatefulSet/redis", "Service/redis", "Deployment/web", "Job/audit"} <= seen.keys()
    for name, ways in seen.items():
        assert len(ways) == 1, f"{name} cannot be changed so: {dict(ways)}"


#: Where Kubernetes has text, so that a number stands as text.
TEXTS = {"value", "data", "labels", "annotations", "matchLabels", "version", "args", "command"}

#: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/: it is kept with
#: the largest suffix that leaves a whole number.
CANONICAL = re.compile(r"[1-9][0-9]{0,3}(m|[KMGT]i)?")


def is_kept_as_it_is_given(name: str, resource: Resource) -> None:
    """Else a second apply would change something: what is kept in another form than it is given."""
    for path, value in places(resource):
        where = f"{name}: {path} is {value!r}"
        assert value not in ({}, [], "", None), where
        if isinstance(value, str) and not TEXTS.intersection(path):
            assert not value.isdecimal(), where
        if {"requests", "limits"}.intersection(path[-2:-1]):
            assert CANONICAL.fullmatch(value), where
            assert value not in ("1000m", "1024Ki", "1024Mi", "1024Gi"), where


def test_what_a_second_apply_would_change_is_seen() -> None:
    memory: Place = ("spec", "template", "spec", "containers", 0, "resources", "limits", "memory")
    for path, value in (memory, "1024Mi"), (memory, "0.5Gi"), (("spec", "a"), {}), (("b",), "80"):
        with pytest.raises(AssertionError):
            is_kept_as_it_is_given("web", changed(RESOURCES["Deployment/web"], path, value))


@pytest.mark.parametrize(
    ("name", "path", "value", "may_change"),
    [
        ("StatefulSet/redis", ("spec", "podManagementPolicy"), "OrderedReady", False),
        ("StatefulSet/redis", ("spec", "serviceName"), "other", False),
        ("StatefulSet/redis", ("spec", "selector", "matchLabels", "a"), "b", False),
        ("StatefulSet/redis", ("spec", "volumeClaimTemplates", 0, "metadata", "a"), "b", False),
        ("StatefulSet/redis", ("spec", "replicas"), 9, True),
        ("StatefulSet/redis", ("spec", "template"), "changed", True),
        ("Service/redis", ("spec", "clusterIP"), "10.0.0.1", False),
        ("Service/redis", ("spec", "publishNotReadyAddresses"), "changed", True),
        ("Service/redis", ("spec", "ports"), "changed", True),
        ("Deployment/web", ("spec", "selector", "matchLabels", "a"), "b", False),
        ("Deployment/web", ("spec", "template"), "changed", True),
    ],
)
def test_what_kubernetes_does_not_let_change_is_seen_and_nothing_else(
    name: str, path: Place, value: object, may_change: bool
) -> None:
    after = changed(RESOURCES[name], path, value)
    assert (unchangeable(after) == unchangeable(RESOURCES[name])) is may_change


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("Job", {"spec": {"template": {"spec": {"containers": []}}}}),
        ("Secret", {"type": "Opaque"}),
        ("ConfigMap", {"immutable": True, "data": {"a": "b"}}),
        ("RoleBinding", {"roleRef": {"name": "a"}}),
        ("Rollout", {"spec": {"selector": {}}}),
    ],
)
def test_nor_of_other_kinds(kind: str, rest: Resource) -> None:
    assert unchangeable({"kind": kind, **rest})

"""Components can be added to a base that runs, and removed from it, in any order."""

import re
from collections import defaultdict
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.deploy.changes import unchangeable
from tests.deploy.conftest import Render
from tests.deploy.test_components import LISTED
from tests.deploy.test_kubernetes import RESOURCES
from tests.deploy.test_validation import places
from tests.deploy.validation import Resource

#: What a component must have before it, and what cannot stand beside it.
NEEDS = {"canary": ["gateway"]}


def in_order(*names: str) -> tuple[str, ...]:
    """What kustomization.yaml lists when these are wanted."""
    wanted = {*names, *(need for name in names for need in NEEDS.get(name, ()))}
    return tuple(name for name in LISTED if name in wanted)


# The base, each component, each two of them, and all: what differs between any two sets of
# components differs between two of these, as each component changes what it changes alone or
# because of another one.
@pytest.mark.parametrize(
    "sizes",
    [
        (0, 1, len(LISTED)),
        pytest.param((0, 1, 2, len(LISTED)), marks=pytest.mark.slow),
    ],
    ids=["alone", "each two"],
)
def test_each_set_of_components_can_follow_each_other(
    sizes: tuple[int, ...], render: Render
) -> None:
    states = sorted({in_order(*some) for size in sizes for some in combinations(LISTED, size)})
    # An object that a component leaves behind stays as it was, so every two sets are compared.
    seen: dict[str, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    for state in states:
        for name, resource in render(*state).items():
            seen[name][yaml.safe_dump(unchangeable(resource))].append(state)
    assert {"StatefulSet/redis", "Service/redis", "Deployment/web", "Job/audit"} <= seen.keys()
    for name, ways in seen.items():
        assert len(ways) == 1, f"{name} cannot be changed so: {dict(ways)}"


def test_a_release_changes_nothing_of_the_claims_of_the_one_before(render: Render) -> None:
    for name, resource in render("sentinel").items():
        if name.startswith("StatefulSet/"):
            (claim,) = resource["spec"]["volumeClaimTemplates"]
            assert claim["metadata"].keys() == {"name"}, "not the labels that others have"


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("StatefulSet/redis", ("spec", "podManagementPolicy"), "OrderedReady"),
        ("StatefulSet/redis", ("spec", "serviceName"), "other"),
        ("StatefulSet/redis", ("spec", "selector", "matchLabels", "a"), "b"),
        (
            "StatefulSet/redis",
            ("spec", "volumeClaimTemplates", 0, "metadata", "labels"),
            {"a": "b"},
        ),
        ("Service/redis", ("spec", "clusterIP"), "10.0.0.1"),
        ("Deployment/web", ("spec", "selector", "matchLabels", "a"), "b"),
    ],
)
def test_what_kubernetes_does_not_let_change_is_seen(
    name: str, path: tuple[str | int, ...], value: object
) -> None:
    changed: Any = deepcopy(RESOURCES[name])
    *way, last = path
    place = changed
    for step in way:
        place = place[step]
    place[last] = value
    assert unchangeable(changed) != unchangeable(RESOURCES[name])


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


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("StatefulSet/redis", ("spec", "replicas")),
        ("StatefulSet/redis", ("spec", "template")),
        ("Service/redis", ("spec", "publishNotReadyAddresses")),
        ("Service/redis", ("spec", "ports")),
        ("Deployment/web", ("spec", "template")),
    ],
)
def test_what_kubernetes_lets_change_is_not_compared(name: str, path: tuple[str, str]) -> None:
    changed: Any = deepcopy(RESOURCES[name])
    changed[path[0]][path[1]] = "changed"
    assert unchangeable(changed) == unchangeable(RESOURCES[name])


#: Where Kubernetes has text, so that a number stands as text.
TEXTS = {"value", "data", "labels", "annotations", "matchLabels", "version", "args", "command"}

#: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/: it is kept with
#: the largest suffix that leaves a whole number.
CANONICAL = re.compile(r"[1-9][0-9]{0,3}(m|[KMGT]i)?")


@pytest.mark.parametrize("state", [(), *((name,) for name in LISTED), LISTED], ids="+".join)
def test_a_second_apply_changes_nothing(render: Render, state: tuple[str, ...]) -> None:
    # What Kubernetes would keep in another form than it is given is a change at each apply.
    for name, resource in render(*in_order(*state)).items():
        for path, value in places(resource):
            where = f"{name}: {path} is {value!r}"
            assert value not in ({}, [], "", None), where
            if isinstance(value, str) and not TEXTS.intersection(path):
                assert not value.isdecimal(), where
            if {"requests", "limits"}.intersection(path[-2:-1]):
                assert CANONICAL.fullmatch(value), where
                assert value not in ("1000m", "1024Ki", "1024Mi", "1024Gi"), where

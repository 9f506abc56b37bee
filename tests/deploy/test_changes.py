"""Components can be added to a base that runs, and removed from it, in any order.

What Kubernetes does not let change of an object that is there, no component may change: an apply
that asks for such a change is refused, and what else it asks for is done all the same.
"""

import re
from itertools import combinations
from typing import Any

import pytest

from tests.deploy.manifests import LISTED, RESOURCES, Place, Resource, changed, places, render

#: Of a StatefulSet's spec, what may change; the rest may not.
#: https://kubernetes.io/docs/reference/kubernetes-api/apps/stateful-set-v1/ and the API server's
#: own words: "updates to statefulset spec for fields other than … are forbidden".
STATEFUL_SET_MAY_CHANGE = {
    *("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit"),
    *("persistentVolumeClaimRetentionPolicy", "minReadySeconds"),
}

#: Of the spec of other kinds, what may not change.
MAY_NOT_CHANGE = {
    # https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#label-selector-updates
    "Deployment": {"selector"},
    # https://kubernetes.io/docs/reference/kubernetes-api/batch/job-v1/
    "Job": {
        *("selector", "template", "completions", "completionMode", "podFailurePolicy"),
        "managedBy",
    },
    # https://kubernetes.io/docs/concepts/services-networking/service/#choosing-your-own-ip-address
    "Service": {"clusterIP", "clusterIPs", "type", "loadBalancerClass"},
    # https://argoproj.github.io/argo-rollouts/features/specification/
    "Rollout": {"selector"},
}

#: Where Kubernetes has text, so that a number stands as text.
TEXTS = {"value", "data", "labels", "annotations", "matchLabels", "version", "args", "command"}

#: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/: it is kept with
#: the largest suffix that leaves a whole number.
CANONICAL = re.compile(r"[1-9][0-9]{0,3}(m|[KMGT]i)?")


def unchangeable(resource: Resource) -> dict[str, Any]:
    """Return what of an object has to stay as it is, for as long as it is there."""
    kind, spec = resource["kind"], resource.get("spec", {})
    if kind == "StatefulSet":
        return {name: spec[name] for name in spec if name not in STATEFUL_SET_MAY_CHANGE}
    kept = {name: spec[name] for name in spec if name in MAY_NOT_CHANGE.get(kind, ())}
    return kept | {"type": resource.get("type")}  # of a Secret


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


def states(*sizes: int) -> list[tuple[str, ...]]:
    """Each set of so many components, as kustomization.yaml lists them; canary needs gateway."""
    sets = [set(names) for size in sizes for names in combinations(LISTED, size)]
    whole = [names | {"gateway"} if "canary" in names else names for names in sets]
    return sorted({tuple(name for name in LISTED if name in names) for names in whole})


# The base, each component, each two of them, and all: what differs between any two sets of
# components differs between two of these, as each component changes what it changes alone or
# because of another one.
@pytest.mark.parametrize(
    "sizes",
    [(0, len(LISTED)), pytest.param((0, 1, 2, len(LISTED)), marks=pytest.mark.slow)],
    ids=["all", "each two"],
)
def test_each_set_of_components_can_follow_each_other(sizes: tuple[int, ...]) -> None:
    # An object that a component leaves behind stays as it was, so all sets are compared.
    kept: dict[str, dict[str, Any]] = {}
    for state in states(*sizes):
        for name, resource in render(*state).items():
            must_stay = unchangeable(resource)
            assert kept.setdefault(name, must_stay) == must_stay, f"{name} with {state}"
            is_kept_as_it_is_given(name, resource)
            assert not resource.get("immutable")
            for claim in resource.get("spec", {}).get("volumeClaimTemplates", ()):
                assert claim["metadata"].keys() == {"name"}, "a release would change its label"
    assert {"StatefulSet/redis", "Service/redis", "Deployment/web", "Job/audit"} <= kept.keys()


def test_what_a_second_apply_would_change_is_seen() -> None:
    memory: Place = ("spec", "template", "spec", "containers", 0, "resources", "limits", "memory")
    for path, value in (memory, "1024Mi"), (memory, "0.5Gi"), (("spec", "a"), {}), (("b",), "80"):
        with pytest.raises(AssertionError):
            is_kept_as_it_is_given("web", changed(RESOURCES["Deployment/web"], path, value))


def test_what_kubernetes_does_not_let_change_is_seen_and_nothing_else() -> None:
    for name, field, may_change in (
        *(("StatefulSet/redis", one, False) for one in ("serviceName", "volumeClaimTemplates")),
        *(("StatefulSet/redis", one, True) for one in ("replicas", "template")),
        ("Service/redis", "clusterIP", False),
        ("Service/redis", "ports", True),
        ("Deployment/web", "selector", False),
        ("Deployment/web", "template", True),
    ):
        after = changed(RESOURCES[name], ("spec", field), "another")
        assert (unchangeable(after) == unchangeable(RESOURCES[name])) is may_change

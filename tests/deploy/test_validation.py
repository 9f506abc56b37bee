"""The resources of the manifests are validated strictly: each mistake in one is refused.

No field is unknown, missing, or has a value that is not allowed. Packages carry the schemas of
Kubernetes' own kinds, and models of cert-manager's kinds and the Prometheus Operator's, made of
their schemas. None from PyPI carries the others'.
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate.utils
import pydantic
import pytest

from tests.deploy.manifests import (
    COMPONENTS,
    WEB,
    Place,
    Resource,
    changed,
    job_of,
    load_all,
    places,
)

if TYPE_CHECKING:
    from cloudcoil.pydantic import BaseModel

Schema = dict[str, Any]

#: What a field holds that has no fields.
LEAVES: dict[Any, Schema] = {
    str: {"type": "string", "minLength": 1},
    int: {"type": "integer", "minimum": 0},
    bool: {"type": "boolean"},
    dict: {"type": "object"},
    "seconds": {"type": "string", "pattern": "^[0-9]+(m|s)$"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
}


def schema(shape: Any) -> Schema:
    """Return the schema of a value.

    :arg shape: one of `LEAVES`; a set of texts, of which it is one; a list with the shape of its
        items, of which there is at least one; or an object's fields, and no others. A field may be
        missing unless its name ends with ``!``.
    """
    match shape:
        case dict():
            return {
                "type": "object",
                "properties": {name.removesuffix("!"): schema(one) for name, one in shape.items()},
                "required": [name.removesuffix("!") for name in shape if name.endswith("!")],
                "additionalProperties": False,
            }
        case list():
            return {"type": "array", "items": schema(shape[0]), "minItems": 1, "maxItems": 16}
        case set():
            return {"enum": sorted(shape)}
    return LEAVES[shape]


# Of each kind the fields that the components use.

#: https://gateway-api.sigs.k8s.io/reference/spec/#httproute; a Service's port is required.
PARENTS = [{"name!": str, "namespace": str}]
BACKENDS = [{"name!": str, "port!": int, "weight": int}]
HTTP_ROUTE = {"parentRefs!": PARENTS, "rules!": [{"backendRefs": BACKENDS}]}

#: https://argoproj.github.io/argo-rollouts/features/specification/
ANALYSIS = {"templates!": [{"templateName!": str}], "args": [{"name!": str, "value!": str}]}
CANARY = {
    "steps!": [{"setWeight": int, "analysis": ANALYSIS}],
    **{"maxSurge": int, "maxUnavailable": int, "canaryService": str},
}
WORKLOAD = {
    **{"apiVersion!": str, "kind!": {"Deployment", "ReplicaSet", "PodTemplate"}, "name!": str},
    "scaleDown": {"never", "onsuccess", "progressively"},
}
ROLLOUT = {
    "selector!": {"matchLabels!": "labels"},
    **{"workloadRef!": WORKLOAD, "strategy!": {"canary!": CANARY}},
}

#: https://argoproj.github.io/argo-rollouts/features/analysis/ and its page on Jobs; `validate`
#: looks at the Job's own spec.
METRIC = {"name!": str, "provider!": {"job": {"spec": dict}}}
ANALYSIS_TEMPLATE = {"args": [{"name!": str}], "metrics!": [METRIC]}

#: https://docs.flagger.app/usage/how-it-works#canary-resource, its page on webhooks, and
#: https://docs.flagger.app/tutorials/gatewayapi-progressive-delivery
REFERENCE = {"apiVersion": str, "kind!": str, "name!": str}
HOOK = {
    **{"name!": str, "url!": str, "timeout": "seconds"},
    "type": {"pre-rollout", "rollout", "confirm-rollout", "post-rollout"},
}
FLAGGER_CANARY = {
    **{"targetRef!": REFERENCE, "autoscalerRef": REFERENCE},
    **{"progressDeadlineSeconds": int, "revertOnDeletion": bool},
    "provider": {"gatewayapi:v1", "kubernetes"},
    "service!": {"port!": int, "portName": str, "targetPort": str, "gatewayRefs": PARENTS},
    "analysis!": {
        **{"interval!": "seconds", "threshold!": int},
        **{"stepWeights": [int], "webhooks": [HOOK]},
    },
}

#: The spec of each custom resource: its fields, or the module that has the model of the whole.
SPECS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("argoproj.io/v1alpha1", "Rollout"): ROLLOUT,
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): ANALYSIS_TEMPLATE,
    ("flagger.app/v1beta1", "Canary"): FLAGGER_CANARY,
    ("cert-manager.io/v1", "Certificate"): "cloudcoil.models.cert_manager.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "cloudcoil.models.prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "cloudcoil.models.prometheus_operator.v1",
}

#: The schemas, which it would read for each resource again.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
NEWEST = kubernetes_validate.latest_version()


def validate(resource: Resource, *, by_models: bool = True) -> None:
    """Raise jsonschema's or pydantic's ValidationError, or SchemaNotFoundError for another kind.

    :arg by_models: which take seconds to import. Without, of their kinds the outermost fields are
        looked at.
    """
    spec = SPECS.get((resource["apiVersion"], resource["kind"]))
    if spec is None:
        kubernetes_validate.validate(resource, NEWEST, strict=True)
        return
    modelled = isinstance(spec, str)
    # The models let a resource be without these, and be empty.
    metadata = {"name!": str, "namespace": str, "labels": "labels"}
    whole = {"metadata!": metadata, "spec!": dict if modelled else spec}
    jsonschema.validate(resource, schema(whole | {"apiVersion!": str, "kind!": str}))
    if resource["kind"] == "AnalysisTemplate":
        for metric in resource["spec"]["metrics"]:
            validate(job_of(metric))
    if isinstance(spec, str) and by_models:
        model(spec, resource["kind"]).model_validate(
            resource, strict=True, extra="forbid", by_alias=True, by_name=False
        )


@cache
def model(module: str, kind: str) -> "type[BaseModel]":
    """Return the model of a kind. The modules hold many: what is not used is not prepared."""
    from cloudcoil.pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
    return getattr(import_module(module), kind)


#: The last object of each of these kinds, and one of Kubernetes' own.
GOOD = {
    one["kind"]: one
    for file in sorted(COMPONENTS.rglob("*.yaml"))
    for one in load_all(file.read_text())
    if (one["apiVersion"], one["kind"]) in SPECS
} | {"Deployment": WEB}

#: Maps of text to text, whose fields are the user's.
FREE = {"labels", "annotations", "matchLabels", "requests", "limits"}

REFUSED = (
    jsonschema.ValidationError,
    pydantic.ValidationError,
    kubernetes_validate.ValidationError,
)


def may_be_a_number(kind: str, path: Place) -> bool:
    names = {"expr", "targetPort"}
    if kind == "Deployment":
        names |= {"port", "maxSurge", "maxUnavailable"}
    return path[-1] in names or bool({"requests", "limits"}.intersection(path[:-1]))


BACKEND: Place = ("spec", "rules", 0, "backendRefs", 0)

#: Places that must have a value, and values that are not allowed there.
MISTAKES: dict[str, list[tuple[Any, ...]]] = {
    "HTTPRoute": [((*BACKEND, "weight"), -1), ((*BACKEND, "name"),)],
    # The name that Python has for it.
    "Certificate": [(("spec", "issuerRef", "name"),), (("spec", "common_name"), "web")],
    "PrometheusRule": [(("spec", "groups", 0, "rules", 0, "for"), "30 seconds")],
    "ServiceMonitor": [(("spec", "endpoints", 0, "scheme"), "ftp")],
}


def mistakes(kind: str) -> Iterator[Resource]:
    """Each place with a field that is unknown, a value of another type, none, or one of these."""
    good = GOOD[kind]
    for path, value in places(good):
        if isinstance(value, dict) and not FREE.intersection(path):
            yield changed(good, (*path, "mistyped"), "text")
    for path, value in places(good["spec"], ("spec",)):
        for wrong in (["text"], *(() if may_be_a_number(kind, path) else ("1", 1))):
            if type(wrong) is not type(value):
                yield changed(good, path, wrong)
    whole = (
        [(("spec",),), (("metadata",),), (("metadata", "name"),)] if kind != "Deployment" else []
    )
    for path, *given in whole + MISTAKES.get(kind, []):
        yield changed(good, path, *given)


# One shows that mistakes are seen; the models of some take seconds to import.
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind != "HTTPRoute" else []) for kind in GOOD],
)
def test_a_resource_is_valid_and_each_mistake_in_it_is_refused(kind: str) -> None:
    validate(GOOD[kind])
    for one in mistakes(kind):
        with pytest.raises(REFUSED):
            validate(one)
    for field, value in ("apiVersion", "example.com/v1"), ("kind", f"{kind}s"):
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            validate(changed(GOOD[kind], (field,), value))


def test_every_kind_is_tried_and_a_mistyped_field_is_refused() -> None:
    assert {kind for _, kind in SPECS} | {"Deployment"} == GOOD.keys()
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(changed(WEB, ("spec", "replica"), 5))

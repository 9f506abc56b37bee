"""Validating a manifest: no field is unknown, missing, or has a value that is not allowed.

Packages carry the schemas of Kubernetes' own kinds, and models of cert-manager's kinds and the
Prometheus Operator's, made of their schemas. None from PyPI carries the others'.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate.utils

from tests.deploy.manifests import Resource, job_of

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

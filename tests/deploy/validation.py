"""Validating a manifest: no field is unknown, missing, or has a value that is not allowed.

Packages carry the schemas of Kubernetes' own kinds, and models of cert-manager's kinds and the
Prometheus Operator's, made of their schemas. None from PyPI carries the Gateway API's.
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


class Leaf(Schema):
    """What a field holds that has no fields."""


TEXT = Leaf(type="string", minLength=1)
TEXTS = Leaf(type="object", additionalProperties={"type": "string"})  # as labels are
OBJECT = Leaf(type="object")
PORT = Leaf(type="integer", minimum=1, maximum=65535)
PERCENT = Leaf(type="integer", minimum=0, maximum=100)
COUNT = Leaf(type="integer", minimum=0)
SECONDS = Leaf(type="string", pattern="^[0-9]+(m|s)$")


def one_of(*texts: str) -> Leaf:
    return Leaf(enum=list(texts))


def schema(shape: Any) -> Schema:
    """Return the schema of an object with these fields alone.

    All of them may be missing but those whose names end with ``!``. A list has at least one item of
    its kind.
    """
    if isinstance(shape, Leaf):
        return shape
    if isinstance(shape, list):
        return {"type": "array", "items": schema(shape[0]), "minItems": 1, "maxItems": 16}
    return {
        "type": "object",
        "properties": {name.removesuffix("!"): schema(one) for name, one in shape.items()},
        "required": [name.removesuffix("!") for name in shape if name.endswith("!")],
        "additionalProperties": False,
    }


#: The fields that the components use: https://gateway-api.sigs.k8s.io/reference/spec/#httproute
#: A Service's port is required.
BACKEND = {"name!": TEXT, "port!": PORT, "weight": Leaf(COUNT, maximum=1_000_000)}
PARENT = {"name!": TEXT, "namespace": TEXT}
HTTP_ROUTE = {"parentRefs!": [PARENT], "rules!": [{"backendRefs": [BACKEND]}]}

#: The fields that the components use: https://argoproj.github.io/argo-rollouts/features/specification/
WORKLOAD = {
    "apiVersion!": TEXT,
    "kind!": one_of("Deployment", "ReplicaSet", "PodTemplate"),
    "name!": TEXT,
    "scaleDown": one_of("never", "onsuccess", "progressively"),
}
STEP = {
    "setWeight": PERCENT,
    "analysis": {
        "templates!": [{"templateName!": TEXT}],
        "args": [{"name!": TEXT, "value!": TEXT}],
    },
}
ROLLOUT = {
    "selector!": {"matchLabels!": TEXTS},
    "workloadRef!": WORKLOAD,
    "strategy!": {
        "canary!": {
            "steps!": [STEP],
            "maxSurge": COUNT,
            "maxUnavailable": COUNT,
            "canaryService": TEXT,
        }
    },
}

#: https://argoproj.github.io/argo-rollouts/features/analysis/ and its page on Jobs; `validate`
#: looks at the Job's own spec.
ANALYSIS_TEMPLATE = {
    "args": [{"name!": TEXT}],
    "metrics!": [{"name!": TEXT, "provider!": {"job": {"spec": OBJECT}}}],
}

#: The fields that the components use: https://docs.flagger.app/usage/how-it-works#canary-resource,
#: https://docs.flagger.app/usage/webhooks and https://docs.flagger.app/tutorials/gatewayapi-progressive-delivery
HOOK = {
    "name!": TEXT,
    "url!": Leaf(type="string", pattern="^https?://"),
    "type": one_of("pre-rollout", "rollout", "confirm-rollout", "post-rollout"),
    "timeout": SECONDS,
}
REFERENCE = {"apiVersion": TEXT, "kind!": TEXT, "name!": TEXT}
FLAGGER_CANARY = {
    "provider": one_of("gatewayapi:v1", "kubernetes"),
    "targetRef!": REFERENCE,
    "autoscalerRef": REFERENCE,
    "progressDeadlineSeconds": COUNT,
    "revertOnDeletion": Leaf(type="boolean"),
    "service!": {
        "port!": PORT,
        "portName": TEXT,
        "targetPort": Leaf(type=["string", "integer"]),
        "gatewayRefs": [PARENT],
    },
    "analysis!": {
        "interval!": SECONDS,
        "threshold!": COUNT,
        "stepWeights": [PERCENT],
        "webhooks": [HOOK],
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
    whole = {
        "apiVersion!": TEXT,
        "kind!": TEXT,
        "metadata!": {"name!": TEXT, "namespace": TEXT, "labels": TEXTS},
        "spec!": OBJECT if modelled else spec,
    }
    jsonschema.validate(resource, schema(whole))
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

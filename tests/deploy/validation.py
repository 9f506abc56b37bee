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

TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}  # as labels are


def fields(*required: str, **schemas: Schema) -> Schema:
    """An object with these fields alone, all of which may be missing but those required."""
    return {
        "type": "object",
        "properties": schemas,
        "required": list(required),
        "additionalProperties": False,
    }


def several(schema: Schema, most: int) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": most}


#: The fields that the components use: https://gateway-api.sigs.k8s.io/reference/spec/#httproute
HTTP_ROUTE = fields(
    "parentRefs",
    "rules",
    parentRefs=several(fields("name", name=TEXT, namespace=TEXT), 32),
    rules=several(
        fields(
            backendRefs=several(
                fields(
                    *("name", "port"),  # a Service's port is required
                    name=TEXT,
                    port={"type": "integer", "minimum": 1, "maximum": 65535},
                    weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
                ),
                16,
            )
        ),
        16,
    ),
)

#: The fields that the components use: https://argoproj.github.io/argo-rollouts/features/specification/
#: and, for the reference, https://argoproj.github.io/argo-rollouts/features/specification/#workloadref
ROLLOUT = fields(
    *("selector", "workloadRef", "strategy"),
    selector=fields("matchLabels", matchLabels=TEXTS),
    workloadRef=fields(
        *("apiVersion", "kind", "name"),
        apiVersion=TEXT,
        kind={"enum": ["Deployment", "ReplicaSet", "PodTemplate"]},
        name=TEXT,
        scaleDown={"enum": ["never", "onsuccess", "progressively"]},
    ),
    strategy=fields(
        "canary",
        canary=fields(
            "steps",
            maxSurge={"type": "integer", "minimum": 0},
            maxUnavailable={"type": "integer", "minimum": 0},
            canaryService=TEXT,
            steps=several(
                fields(
                    setWeight={"type": "integer", "minimum": 0, "maximum": 100},
                    analysis=fields(
                        "templates",
                        templates=several(fields("templateName", templateName=TEXT), 8),
                        args=several(fields("name", "value", name=TEXT, value=TEXT), 8),
                    ),
                )
                | {"minProperties": 1, "maxProperties": 1},
                32,
            ),
        ),
    ),
)

#: https://argoproj.github.io/argo-rollouts/features/analysis/ and its page on Jobs; `validate`
#: looks at the Job's own spec.
ANALYSIS_TEMPLATE = fields(
    "metrics",
    args=several(fields("name", name=TEXT), 8),
    metrics=several(
        fields(
            *("name", "provider"),
            name=TEXT,
            provider=fields("job", job=fields("spec", spec={"type": "object"})),
        ),
        8,
    ),
)

#: The fields that the components use: https://docs.flagger.app/usage/how-it-works#canary-resource,
#: https://docs.flagger.app/usage/webhooks and https://docs.flagger.app/tutorials/gatewayapi-progressive-delivery
FLAGGER_CANARY = fields(
    *("targetRef", "service", "analysis"),
    provider={"enum": ["gatewayapi:v1", "kubernetes"]},
    targetRef=fields("kind", "name", apiVersion=TEXT, kind=TEXT, name=TEXT),
    autoscalerRef=fields("kind", "name", apiVersion=TEXT, kind=TEXT, name=TEXT),
    progressDeadlineSeconds={"type": "integer", "minimum": 1},
    revertOnDeletion={"type": "boolean"},
    service=fields(
        "port",
        port={"type": "integer", "minimum": 1, "maximum": 65535},
        portName=TEXT,
        targetPort={"type": ["string", "integer"]},
        gatewayRefs=several(fields("name", name=TEXT, namespace=TEXT), 32),
    ),
    analysis=fields(
        *("interval", "threshold"),
        interval={"type": "string", "pattern": "^[0-9]+(m|s)$"},
        threshold={"type": "integer", "minimum": 0},
        stepWeights=several({"type": "integer", "minimum": 0, "maximum": 100}, 32),
        webhooks=several(
            fields(
                *("name", "url"),
                name=TEXT,
                type={"enum": ["pre-rollout", "rollout", "confirm-rollout", "post-rollout"]},
                url={"type": "string", "pattern": "^https?://"},
                timeout={"type": "string", "pattern": "^[0-9]+(m|s)$"},
            ),
            8,
        ),
    ),
)

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
    whole = fields(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion=TEXT,
        kind=TEXT,
        metadata=fields("name", name=TEXT, namespace=TEXT, labels=TEXTS),
        spec={"type": "object"} if modelled else spec,  # type: ignore[arg-type]
    )
    jsonschema.validate(resource, whole)
    if resource["kind"] == "AnalysisTemplate":
        for metric in resource["spec"]["metrics"]:
            validate(job_of(metric))
    if modelled and by_models:
        model(spec, resource["kind"]).model_validate(  # type: ignore[arg-type]
            resource, strict=True, extra="forbid", by_alias=True, by_name=False
        )


@cache
def model(module: str, kind: str) -> "type[BaseModel]":
    """Return the model of a kind. The modules hold many: what is not used is not prepared."""
    from cloudcoil.pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
    return getattr(import_module(module), kind)

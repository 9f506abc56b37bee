"""Schemas of the custom resources that the components make: the fields they use, and no others.

No package that is installed here carries the whole ones. Each schema names the page of its kind.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


def fields(*required: str, **schemas: Schema) -> Schema:
    """An object with these fields alone, all of which may be missing but those required."""
    return {
        "type": "object",
        "properties": schemas,
        "required": list(required),
        "additionalProperties": False,
    }


def several(schema: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1} | ({"maxItems": most} if most else {})


def texts() -> Schema:
    """A map of text to text, as labels are."""
    return {"type": "object", "additionalProperties": {"type": "string"}}


#: https://gateway-api.sigs.k8s.io/reference/spec/#httproute
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
                    port=PORT,
                    weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
                ),
                16,
            )
        ),
        16,
    ),
)

#: https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateSpec
CERTIFICATE = fields(
    "secretName",
    "issuerRef",
    secretName=TEXT,
    dnsNames=several(TEXT),
    issuerRef=fields("name", name=TEXT, kind={"enum": ["Issuer", "ClusterIssuer"]}),
    privateKey=fields(rotationPolicy={"enum": ["Always", "Never"]}),
)

#: https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.ServiceMonitor
SERVICE_MONITOR = fields(
    "selector",
    "endpoints",
    selector=fields(
        matchLabels=texts(),
        matchExpressions=several(
            fields(
                *("key", "operator"),
                key=TEXT,
                operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                values=several(TEXT),
            )
        ),
    ),
    endpoints=several(
        fields(
            port=TEXT,
            path=TEXT,
            interval={"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
            scheme={"enum": ["http", "https"]},
            tlsConfig=fields(
                serverName=TEXT, ca=fields(secret=fields("name", "key", name=TEXT, key=TEXT))
            ),
        )
    ),
)

#: https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PrometheusRule
PROMETHEUS_RULE = fields(
    "groups",
    groups=several(
        fields(
            "name",
            "rules",
            name=TEXT,
            rules=several(
                fields(
                    *("alert", "expr"),
                    **{"for": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}},
                    alert=TEXT,
                    expr=TEXT,
                    labels=texts(),
                    annotations=texts(),
                )
            ),
        )
    ),
)

SPECS = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("cert-manager.io/v1", "Certificate"): CERTIFICATE,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): SERVICE_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
}


def schema_of(resource: dict[str, Any]) -> Schema | None:
    """Return the schema of a whole resource, or None for a kind of Kubernetes' own."""
    spec = SPECS.get((resource["apiVersion"], resource["kind"]))
    metadata = fields("name", name=TEXT, namespace=TEXT, labels=texts())
    return spec and fields(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion=TEXT,
        kind=TEXT,
        metadata=metadata,
        spec=spec,
    )

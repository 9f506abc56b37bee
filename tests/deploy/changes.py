"""What Kubernetes does not let change of an object that is there.

An apply that asks for such a change is refused, and what else it asks for is done all the same.
"""

from typing import Any

from tests.deploy.manifests import Resource

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
    "DaemonSet": {"selector"},
    # https://kubernetes.io/docs/reference/kubernetes-api/batch/job-v1/
    "Job": {
        "selector",
        "template",
        "completions",
        "completionMode",
        "podFailurePolicy",
        "managedBy",
    },
    # https://kubernetes.io/docs/concepts/services-networking/service/#choosing-your-own-ip-address
    "Service": {"clusterIP", "clusterIPs", "type", "loadBalancerClass"},
    # https://kubernetes.io/docs/concepts/storage/persistent-volumes/
    "PersistentVolumeClaim": {"accessModes", "storageClassName", "selector", "volumeName"},
    # https://argoproj.github.io/argo-rollouts/features/specification/
    "Rollout": {"selector"},
}

#: Of a whole object, for the kinds that have no spec.
MAY_NOT_CHANGE_OF_OBJECT = {
    "Secret": {"type"},
    "RoleBinding": {"roleRef"},
    "ClusterRoleBinding": {"roleRef"},
}


def unchangeable(resource: Resource) -> dict[str, Any]:
    """Return what of an object has to stay as it is, for as long as it is there."""
    kind, spec = resource["kind"], resource.get("spec", {})
    if kind in ("Secret", "ConfigMap") and resource.get("immutable"):
        return {name: resource.get(name) for name in ("data", "binaryData", "immutable", "type")}
    if kind == "StatefulSet":
        return {name: spec[name] for name in spec if name not in STATEFUL_SET_MAY_CHANGE}
    if kind in MAY_NOT_CHANGE_OF_OBJECT:
        of_object = MAY_NOT_CHANGE_OF_OBJECT[kind]
        return {name: resource[name] for name in resource if name in of_object}
    return {name: spec[name] for name in spec if name in MAY_NOT_CHANGE.get(kind, ())}

"""deploy/kubernetes/: allowed by the restricted profile, and of one mind with the image.

``test_components.py`` validates and renders it.
"""

import re
import shutil
from pathlib import Path

import yaml

import config
from config import Settings
from http1 import DRAIN_PAUSE
from tests.deploy.manifests import (
    BASE,
    KUSTOMIZATION,
    REDIS,
    RESOURCES,
    WEB,
    Resource,
    container,
    environment,
    kustomize,
    pod,
    render,
)
from tests.support import ROOT

COMPOSE, STACK = (
    yaml.safe_load((ROOT / file).read_text())["services"]
    for file in ("compose.yaml", "deploy/stack.yaml")
)
DOCKERFILE = dict(
    re.findall(r"^(USER|EXPOSE|HEALTHCHECK) (.*)$", (ROOT / "Dockerfile").read_text(), re.M)
)


def test_every_file_is_applied_and_what_kustomize_renders_reads_the_secret() -> None:
    applied = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert {file.name for file in BASE.glob("*.yaml")} == applied
    rendered = render()
    (name,) = rendered.keys() - RESOURCES.keys()
    secret = rendered[name]
    assert (secret["kind"], [*secret["data"]]) == ("Secret", ["password"])
    for name in ("Deployment/web", "StatefulSet/redis"):
        (volume,) = pod(rendered[name])["volumes"]
        assert volume["secret"]["secretName"] == secret["metadata"]["name"] != "redis-password"
        mounts = {one["name"]: one for one in container(rendered[name])["volumeMounts"]}
        assert mounts[volume["name"]]["mountPath"] == "/run/secrets/redis"


def test_without_a_password_of_ones_own_nothing_is_applied(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("redis-password.txt")
    refused = kustomize(shutil.copytree(BASE, tmp_path / "base", ignore=ignore))
    assert refused.returncode != 0
    assert "redis-password.txt" in refused.stderr


def test_the_restricted_profile_admits_it() -> None:
    labels = RESOURCES["Namespace/friendlyhello"]["metadata"]["labels"]
    for mode in ("enforce", "warn", "audit"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert re.fullmatch(r"v1\.\d+", labels[f"pod-security.kubernetes.io/{mode}-version"])


def user_of(resource: Resource) -> str:
    context = pod(resource)["securityContext"]
    return f"{context['runAsUser']}:{context['runAsGroup']}"


def test_user_port_and_probes_are_the_images() -> None:
    assert user_of(WEB) == DOCKERFILE["USER"]
    port, _ = container(WEB)["ports"]
    assert port["containerPort"] == int(DOCKERFILE["EXPOSE"]) == Settings().port
    (sysctl,) = pod(WEB)["securityContext"]["sysctls"]
    assert int(sysctl["value"]) <= port["containerPort"]
    for kind, path in ("startup", "healthz"), ("readiness", "readyz"), ("liveness", "healthz"):
        asked = container(WEB)[f"{kind}Probe"]["httpGet"]
        assert asked == {"path": f"/{path}", "port": port["name"]}
    startup = container(WEB)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60, "nothing kills it before"


def test_limits_users_and_images_are_those_of_compose_and_the_stack() -> None:
    limits = {name: STACK[name]["deploy"]["resources"]["limits"] for name in ("web", "redis")}
    for resource, name in (WEB, "web"), (REDIS, "redis"):
        limit = container(resource)["resources"]["limits"]["memory"].removesuffix("i")
        assert (limits[name]["memory"], COMPOSE[name]["mem_limit"]) == (limit, limit.lower())
    assert limits["web"]["pids"] == COMPOSE["web"]["pids_limit"]
    for services in (COMPOSE, STACK):
        assert services["redis"]["user"] == user_of(REDIS)
        assert services["redis"]["image"] == f"${{REDIS_IMAGE:-{container(REDIS)['image']}}}"
    assert STACK["web"]["secrets"][0]["uid"] == DOCKERFILE["USER"].partition(":")[0]


def test_redis_is_found_where_the_program_looks_for_it() -> None:
    (port,) = RESOURCES["Service/redis"]["spec"]["ports"]
    assert Settings().redis_url == f"redis://redis:{port['port']}/0"
    assert REDIS["spec"]["serviceName"] == "redis"
    opened = {"name": port["targetPort"], "containerPort": port["port"]}
    assert container(REDIS)["ports"] == [opened]
    (mount,) = container(WEB)["volumeMounts"]
    assert environment(WEB)["REDIS_PASSWORD_FILE"] == f"{mount['mountPath']}/password"


def test_the_labels_say_on_which_node_and_in_which_zone_a_pod_is() -> None:
    *before, last = container(WEB)["env"]
    # Only variables that stand before it are filled in.
    assert last["name"] == "LABELS"
    taken = {one["name"]: one["valueFrom"]["fieldRef"] for one in before if "valueFrom" in one}
    assert taken == {
        "NODE": {"fieldPath": "spec.nodeName"},
        "NAMESPACE": {"fieldPath": "metadata.namespace"},
        "ZONE": {"fieldPath": "metadata.labels['topology.kubernetes.io/zone']"},
    }
    for zone, expected in (("eu-1", {"zone": "eu-1"}), ("", {})):  # no zone before 1.35
        text = last["value"]
        for name, value in {"NODE": "n7", "NAMESPACE": "friendlyhello", "ZONE": zone}.items():
            text = text.replace(f"$({name})", value)
        found = config.load([], {"LABELS": text}).labels
        assert found == {"node": "n7", "namespace": "friendlyhello"} | expected


def test_selectors_select_the_pods_they_are_meant_for() -> None:
    spread = [one["labelSelector"] for one in pod(WEB)["topologySpreadConstraints"]]
    budget = RESOURCES["PodDisruptionBudget/web"]["spec"]["selector"]
    for name, resource, others in ("web", WEB, [budget, *spread]), ("redis", REDIS, []):
        labels = resource["spec"]["template"]["metadata"]["labels"]
        assert RESOURCES[f"Service/{name}"]["spec"]["selector"] == labels
        for one in (resource["spec"]["selector"], *others):
            assert one == {"matchLabels": labels}
    assert WEB["spec"]["selector"] != REDIS["spec"]["selector"]
    target = RESOURCES["HorizontalPodAutoscaler/web"]["spec"]["scaleTargetRef"]
    assert RESOURCES[f"{target['kind']}/{target['name']}"] is WEB
    assert "replicas" not in WEB["spec"], "an apply would undo what the autoscaler did"


def test_the_page_is_for_all_and_the_admin_port_for_the_monitoring_alone() -> None:
    policy = RESOURCES["NetworkPolicy/web"]["spec"]
    page, admin = container(WEB)["ports"]
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    to_page, to_admin = ([{"protocol": "TCP", "port": one["name"]}] for one in (page, admin))
    assert policy["ingress"] == [
        {"ports": to_page},
        {"from": [{"namespaceSelector": monitoring}], "ports": to_admin},
    ]
    assert policy["policyTypes"] == ["Ingress"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    assert expression["values"] == ["web", "web-canary"]
    settings = config.load([], environment(WEB))
    assert (settings.admin_port, settings.admin_address) == (admin["containerPort"], None)
    (published,) = RESOURCES["Service/web"]["spec"]["ports"]
    assert published["targetPort"] == page["name"]


def test_only_the_web_pods_reach_redis_and_redis_reaches_nobody() -> None:
    policy = RESOURCES["NetworkPolicy/redis"]["spec"]
    assert policy["podSelector"]["matchLabels"] == REDIS["spec"]["selector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy, "none is allowed"
    (rule,) = policy["ingress"]
    port = {"protocol": "TCP", "port": container(REDIS)["ports"][0]["name"]}
    assert rule == {"from": [{"podSelector": WEB["spec"]["selector"]}], "ports": [port]}


def test_requests_in_flight_have_their_grace_before_the_replica_is_killed() -> None:
    stack = STACK["web"]
    for variables, seconds in (
        (environment(WEB), pod(WEB)["terminationGracePeriodSeconds"]),
        (stack["environment"], int(stack["stop_grace_period"].removesuffix("s"))),
    ):
        delay = float(variables["DRAIN_DELAY"])
        assert delay > 0
        assert seconds > max(delay, DRAIN_PAUSE) + DRAIN_PAUSE + Settings().grace
    assert "lifecycle" not in container(WEB)
    rolling = WEB["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (1, 0)

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
    Render,
    container,
    environment,
    kustomize,
    pod,
)
from tests.support import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
STACK = yaml.safe_load((ROOT / "deploy" / "stack.yaml").read_text())
DOCKERFILE = dict(
    re.findall(r"^(USER|EXPOSE|HEALTHCHECK) (.*)$", (ROOT / "Dockerfile").read_text(), re.M)
)


def test_every_file_is_applied_and_what_kustomize_renders_reads_the_secret(render: Render) -> None:
    applied = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert {file.name for file in BASE.glob("*.yaml")} == applied
    rendered = render()
    (secret,) = (one for one in rendered.values() if one["kind"] == "Secret")
    assert rendered.keys() - {f"Secret/{secret['metadata']['name']}"} == RESOURCES.keys()
    assert set(secret["data"]) == {"password"}
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
    for resource in (WEB, REDIS):  # that they are restricted, test_components.py sees
        assert pod(resource)["securityContext"]["runAsUser"] > 0


def test_user_port_and_probes_are_the_images() -> None:
    context = pod(WEB)["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == DOCKERFILE["USER"]
    port, _ = container(WEB)["ports"]
    assert port["containerPort"] == int(DOCKERFILE["EXPOSE"]) == Settings().port
    (sysctl,) = context["sysctls"]
    assert int(sysctl["value"]) <= port["containerPort"]
    (published,) = RESOURCES["Service/web"]["spec"]["ports"]
    assert published["targetPort"] == port["name"]
    for kind, path in ("startup", "healthz"), ("readiness", "readyz"), ("liveness", "healthz"):
        asked = container(WEB)[f"{kind}Probe"]["httpGet"]
        assert asked == {"path": f"/{path}", "port": port["name"]}
    startup = container(WEB)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60, "nothing kills it before"


def test_limits_users_and_images_are_those_of_compose_and_the_stack() -> None:
    composed, stacked = COMPOSE["services"], STACK["services"]
    for resource, name in (WEB, "web"), (REDIS, "redis"):
        limit = container(resource)["resources"]["limits"]["memory"].removesuffix("i")
        assert stacked[name]["deploy"]["resources"]["limits"]["memory"] == limit
        assert composed[name]["mem_limit"] == limit.lower()
    pids = composed["web"]["pids_limit"]
    assert stacked["web"]["deploy"]["resources"]["limits"]["pids"] == pids
    context = pod(REDIS)["securityContext"]
    for services in (composed, stacked):
        assert services["redis"]["user"] == f"{context['runAsUser']}:{context['runAsGroup']}"
        assert services["redis"]["image"] == f"${{REDIS_IMAGE:-{container(REDIS)['image']}}}"
    assert stacked["web"]["secrets"][0]["uid"] == DOCKERFILE["USER"].partition(":")[0]


def test_redis_is_found_where_the_program_looks_for_it() -> None:
    service = RESOURCES["Service/redis"]
    (port,) = service["spec"]["ports"]
    assert Settings().redis_url == f"redis://{service['metadata']['name']}:{port['port']}/0"
    assert REDIS["spec"]["serviceName"] == service["metadata"]["name"]
    opened = {"name": port["targetPort"], "containerPort": port["port"]}
    assert container(REDIS)["ports"] == [opened]
    (mount,) = container(WEB)["volumeMounts"]
    assert environment(WEB)["REDIS_PASSWORD_FILE"] == f"{mount['mountPath']}/password"


def test_the_labels_say_on_which_node_and_in_which_zone_a_pod_is() -> None:
    env = container(WEB)["env"]
    fields = {
        one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in env if "valueFrom" in one
    }
    assert fields == {
        "NODE": "spec.nodeName",
        "NAMESPACE": "metadata.namespace",
        "ZONE": "metadata.labels['topology.kubernetes.io/zone']",
    }
    names = [one["name"] for one in env]
    # Only variables that stand before it are filled in.
    assert all(names.index("LABELS") > names.index(name) for name in fields)
    for zone, expected in (("eu-1", {"zone": "eu-1"}), ("", {})):  # no zone before 1.35
        text = environment(WEB)["LABELS"]
        for name, value in {"NODE": "n7", "NAMESPACE": "friendlyhello", "ZONE": zone}.items():
            text = text.replace(f"$({name})", value)
        found = config.load([], {"LABELS": text}).labels
        assert found == {"node": "n7", "namespace": "friendlyhello"} | expected


def test_selectors_select_the_pods_they_are_meant_for() -> None:
    spread = pod(WEB)["topologySpreadConstraints"]
    selecting = {"web": [RESOURCES["PodDisruptionBudget/web"]["spec"]["selector"]], "redis": []}
    selecting["web"] += [one["labelSelector"] for one in spread]
    for name, resource in ("web", WEB), ("redis", REDIS):
        labels = resource["spec"]["template"]["metadata"]["labels"]
        assert RESOURCES[f"Service/{name}"]["spec"]["selector"] == labels
        for one in (resource["spec"]["selector"], *selecting[name]):
            assert one == {"matchLabels": labels}
    assert WEB["spec"]["selector"] != REDIS["spec"]["selector"]
    target = RESOURCES["HorizontalPodAutoscaler/web"]["spec"]["scaleTargetRef"]
    assert RESOURCES[f"{target['kind']}/{target['name']}"] is WEB
    assert "replicas" not in WEB["spec"], "an apply would undo what the autoscaler did"


def test_the_page_is_for_all_and_the_admin_port_for_the_monitoring_alone() -> None:
    policy = RESOURCES["NetworkPolicy/web"]["spec"]
    page, admin = container(WEB)["ports"]
    everybody, monitoring = policy["ingress"]
    assert everybody == {"ports": [{"protocol": "TCP", "port": page["name"]}]}
    (peer,) = monitoring["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert monitoring["ports"] == [{"protocol": "TCP", "port": admin["name"]}]
    assert policy["policyTypes"] == ["Ingress"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    assert expression["values"] == ["web", "web-canary"]
    settings = config.load([], environment(WEB))
    assert (settings.admin_port, settings.admin_address) == (admin["containerPort"], None)
    published = RESOURCES["Service/web"]["spec"]["ports"]
    assert admin["name"] not in {one["targetPort"] for one in published}


def test_only_the_web_pods_reach_redis_and_redis_reaches_nobody() -> None:
    policy = RESOURCES["NetworkPolicy/redis"]["spec"]
    assert policy["podSelector"]["matchLabels"] == REDIS["spec"]["selector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy, "none is allowed"
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": WEB["spec"]["selector"]}]
    assert rule["ports"] == [{"protocol": "TCP", "port": container(REDIS)["ports"][0]["name"]}]


def test_requests_in_flight_have_their_grace_before_the_replica_is_killed() -> None:
    stack = STACK["services"]["web"]
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

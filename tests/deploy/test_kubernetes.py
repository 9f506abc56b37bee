"""deploy/kubernetes/: valid, allowed by the restricted profile, and of one mind with the image."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import config
from config import VERSION, Settings
from http1 import DRAIN_PAUSE
from tests.deploy.validation import Resource, validate
from tests.support import ROOT
from tests.support.waiting import PATIENCE

BASE = ROOT / "deploy" / "kubernetes"

KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())


def load(text: str) -> dict[str, Resource]:
    """Return manifests by their kind and name."""
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(text)}


RESOURCES = {
    name: resource
    for file in KUSTOMIZATION["resources"]
    for name, resource in load((BASE / file).read_text()).items()
}
WEB, REDIS = RESOURCES["Deployment/web"], RESOURCES["StatefulSet/redis"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
STACK = yaml.safe_load((ROOT / "deploy" / "stack.yaml").read_text())
DOCKERFILE = dict(
    re.findall(r"^(USER|EXPOSE|HEALTHCHECK) (.*)$", (ROOT / "Dockerfile").read_text(), re.M)
)


def pod(resource: Resource) -> Resource:
    return resource["spec"]["template"]["spec"]


def container(resource: Resource) -> Resource:
    (only,) = pod(resource)["containers"]
    return only


@pytest.mark.parametrize("name", RESOURCES)
def test_it_is_valid_for_the_newest_kubernetes(name: str) -> None:
    validate(RESOURCES[name])


def test_a_mistyped_field_is_not_valid() -> None:
    mistyped = {**WEB, "spec": {**WEB["spec"], "replica": 5}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        validate(mistyped)


def test_every_file_is_applied() -> None:
    assert {file.name for file in BASE.glob("*.yaml")} == {
        *KUSTOMIZATION["resources"],
        "kustomization.yaml",
    }


@pytest.fixture
def rendered(tmp_path: Path) -> dict[str, Resource]:
    """What `kubectl kustomize` makes of it, with a password."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: what kustomize renders was not looked at")
    base = shutil.copytree(BASE, tmp_path / "base")
    (base / "redis-password.txt").write_text("secret\n")
    return load(kustomize(base).stdout)


def kustomize(base: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", "kustomize", str(base)], capture_output=True, text=True, timeout=PATIENCE
    )


def is_labelled(resource: Resource) -> None:
    """By https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/."""
    labels = {
        name.removeprefix("app.kubernetes.io/"): value
        for name, value in resource["metadata"]["labels"].items()
    }
    component = labels.pop("component")
    common = dict.fromkeys(("name", "instance", "part-of"), "friendlyhello")
    assert common.items() <= labels.items()
    assert labels["version"] == VERSION
    if template := resource.get("spec", {}).get("template", {}).get("metadata"):
        prefixed = {f"app.kubernetes.io/{name}": value for name, value in common.items()}
        assert template["labels"] == prefixed | {"app.kubernetes.io/component": component}


def test_what_kustomize_renders_is_valid_and_reads_the_secret(
    rendered: dict[str, Resource],
) -> None:
    for resource in rendered.values():
        validate(resource)
        is_labelled(resource)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == "friendlyhello"
    (secret,) = (one for one in rendered.values() if one["kind"] == "Secret")
    assert rendered.keys() - {f"Secret/{secret['metadata']['name']}"} == RESOURCES.keys()
    for name in ("Deployment/web", "StatefulSet/redis"):
        (volume,) = pod(rendered[name])["volumes"]
        assert volume["secret"]["secretName"] == secret["metadata"]["name"] != "redis-password"
        (mount,) = (
            one
            for one in container(rendered[name])["volumeMounts"]
            if one["name"] == volume["name"]
        )
        assert set(secret["data"]) == {"password"}
        assert mount["mountPath"] == "/run/secrets/redis"
    assert container(rendered["Deployment/web"])["image"] == f"friendlyhello:{VERSION}"


def test_without_a_password_of_ones_own_nothing_is_applied(tmp_path: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: what kustomize refuses was not looked at")
    ignore = shutil.ignore_patterns("redis-password.txt")
    refused = kustomize(shutil.copytree(BASE, tmp_path / "base", ignore=ignore))
    assert refused.returncode != 0
    assert "redis-password.txt" in refused.stderr


@pytest.mark.parametrize("resource", [WEB, REDIS], ids=["web", "redis"])
def test_the_restricted_profile_admits_it(resource: Resource) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a root file system
    # that is read-only, which it leaves open.
    labels = RESOURCES["Namespace/friendlyhello"]["metadata"]["labels"]
    for mode in ("enforce", "warn", "audit"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert re.fullmatch(r"v1\.\d+", labels[f"pod-security.kubernetes.io/{mode}-version"])
    whole, own = pod(resource)["securityContext"], container(resource)["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {sysctl["name"] for sysctl in whole.get("sysctls", ())} <= {
        "net.ipv4.ip_unprivileged_port_start"  # a safe one
    }
    assert not pod(resource).keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    assert all(volume.keys() <= {"name", "secret"} for volume in pod(resource)["volumes"])
    assert not pod(resource)["automountServiceAccountToken"]


def test_user_port_and_probes_are_the_images() -> None:
    user, _, group = DOCKERFILE["USER"].partition(":")
    context = pod(WEB)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    port, _ = container(WEB)["ports"]
    assert port["containerPort"] == int(DOCKERFILE["EXPOSE"]) == Settings().port
    (sysctl,) = context["sysctls"]
    assert int(sysctl["value"]) <= port["containerPort"]
    (published,) = RESOURCES["Service/web"]["spec"]["ports"]
    assert published["targetPort"] == port["name"]
    kinds = ("startup", "readiness", "liveness")
    probes = {kind: container(WEB)[f"{kind}Probe"]["httpGet"] for kind in kinds}
    assert probes == {
        "startup": {"path": "/healthz", "port": port["name"]},
        "readiness": {"path": "/readyz", "port": port["name"]},
        "liveness": {"path": "/healthz", "port": port["name"]},
    }
    startup = container(WEB)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60, "nothing kills it before"


def test_limits_users_and_images_are_those_of_compose_and_the_stack() -> None:
    for resource, name in (WEB, "web"), (REDIS, "redis"):
        limits = {
            container(resource)["resources"]["limits"]["memory"].removesuffix("i").lower(),
            COMPOSE["services"][name]["mem_limit"],
            STACK["services"][name]["deploy"]["resources"]["limits"]["memory"].lower(),
        }
        assert len(limits) == 1
    pids = COMPOSE["services"]["web"]["pids_limit"]
    assert STACK["services"]["web"]["deploy"]["resources"]["limits"]["pids"] == pids

    context = pod(REDIS)["securityContext"]
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    image = "${REDIS_IMAGE:-" + container(REDIS)["image"] + "}"
    for services in (COMPOSE["services"], STACK["services"]):
        assert services["redis"]["user"] == user
        assert services["redis"]["image"] == image
    assert STACK["services"]["web"]["secrets"][0]["uid"] == DOCKERFILE["USER"].partition(":")[0]


def test_redis_is_found_where_the_program_looks_for_it() -> None:
    service = RESOURCES["Service/redis"]
    (port,) = service["spec"]["ports"]
    assert Settings().redis_url == f"redis://{service['metadata']['name']}:{port['port']}/0"
    assert REDIS["spec"]["serviceName"] == service["metadata"]["name"]
    assert container(REDIS)["ports"] == [
        {"name": port["targetPort"], "containerPort": port["port"]}
    ]
    environment = {one["name"]: one.get("value") for one in container(WEB)["env"]}
    (mount,) = container(WEB)["volumeMounts"]
    assert environment["REDIS_PASSWORD_FILE"] == f"{mount['mountPath']}/password"


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
    (labels,) = (one["value"] for one in env if one["name"] == "LABELS")
    for zone, expected in (("eu-1", {"zone": "eu-1"}), ("", {})):  # no zone before 1.35
        values = {"NODE": "n7", "NAMESPACE": "friendlyhello", "ZONE": zone}
        text = re.sub(r"\$\(([A-Z]+)\)", lambda name: values[name[1]], labels)  # noqa: B023
        found = config.load([], {"LABELS": text}).labels
        assert found == {"node": "n7", "namespace": "friendlyhello"} | expected


def test_selectors_select_the_pods_they_are_meant_for() -> None:
    labels = {
        name: RESOURCES[name]["spec"]["template"]["metadata"]["labels"]
        for name in ("Deployment/web", "StatefulSet/redis")
    }
    web, redis = labels.values()
    assert web != redis
    assert WEB["spec"]["selector"]["matchLabels"] == web
    assert REDIS["spec"]["selector"]["matchLabels"] == redis
    assert RESOURCES["Service/web"]["spec"]["selector"] == web
    assert RESOURCES["Service/redis"]["spec"]["selector"] == redis
    budget = RESOURCES["PodDisruptionBudget/web"]["spec"]
    assert budget["selector"]["matchLabels"] == web
    for spread in pod(WEB)["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == web
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
    environment = {one["name"]: one["value"] for one in container(WEB)["env"] if "value" in one}
    settings = config.load([], environment)
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
    for environment, seconds in (
        (
            {one["name"]: one.get("value") for one in container(WEB)["env"]},
            pod(WEB)["terminationGracePeriodSeconds"],
        ),
        (
            STACK["services"]["web"]["environment"],
            int(STACK["services"]["web"]["stop_grace_period"].removesuffix("s")),
        ),
    ):
        delay = float(environment["DRAIN_DELAY"])
        assert delay > 0
        assert seconds > max(delay, DRAIN_PAUSE) + DRAIN_PAUSE + Settings().grace
    assert "lifecycle" not in container(WEB)
    rolling = WEB["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (1, 0)

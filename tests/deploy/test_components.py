"""deploy/kubernetes/components/: each alone and all that go together, rendered and validated."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from audit.options import new_parser
from config import load
from tests.deploy import test_kubernetes as base
from tests.deploy.conftest import Render
from tests.deploy.validation import Resource, job_of, validate
from tests.support import ROOT
from tests.support.program import Program
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

COMPONENTS = base.BASE / "components"
NAMES = sorted(path.name for path in COMPONENTS.iterdir())

#: As kustomization.yaml lists them, which is the order in which they go together.
LISTED = re.findall(
    r"^#   - components/(.*)$", (base.BASE / "kustomization.yaml").read_text(), re.M
)

#: A pod that speaks HTTPS itself is behind no gateway and no ingress.
WITHOUT_TLS = [name for name in LISTED if name != "tls"]
WITH_TLS = [name for name in LISTED if name not in ("gateway", "ingress", "canary", "flagger")]

TOGETHER = [
    [],
    WITHOUT_TLS,
    WITH_TLS,
    LISTED,  # what the pods are spoken to with does not fit, but each resource is valid
]
ALONE = [["gateway", name] if name == "canary" else [name] for name in NAMES]

ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())


def files(pattern: str = "*.yaml") -> list[str]:
    return sorted(str(path.relative_to(COMPONENTS)) for path in COMPONENTS.rglob(pattern))


#: Kustomize's own, and parts of resources, which are whole when they are rendered.
PARTS = [*files("kustomization.yaml"), "canary/route.yaml", "sentinel/redis.yaml"]


def test_each_component_is_listed_once_and_in_one_set() -> None:
    assert sorted(LISTED) == NAMES
    assert {*WITH_TLS, *WITHOUT_TLS} == {*LISTED}


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_each_needs_how_to_add_it_see_it_work_and_remove_it(name: str) -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    section = page.partition(f"\n#### {name}\n")[2].partition("\n#")[0]
    found = re.findall(r"^- \*\*(Needs|Add|See it work|Remove)\b", section, re.M)
    assert found == ["Needs", "Add", "See it work", "Remove"]


def what_they_add_is_valid() -> None:
    for file in {*files()} - {*PARTS}:
        for name, resource in base.load((COMPONENTS / file).read_text()).items():
            if name == "Deployment/web-canary":  # its pod is that of web
                resource["spec"]["template"]["spec"] = base.pod(base.WEB)
            validate(resource)


@pytest.mark.parametrize("file", files("kustomization.yaml"))
def test_every_file_of_a_component_is_used(file: str) -> None:
    folder = (COMPONENTS / file).parent
    component = yaml.safe_load((COMPONENTS / file).read_text())
    assert (component["apiVersion"], component["kind"]) == (
        "kustomize.config.k8s.io/v1alpha1",
        "Component",
    )
    patches = {patch["path"] for patch in component.get("patches", ()) if "path" in patch}
    scripts = [one for made in component.get("configMapGenerator", ()) for one in made["files"]]
    used = {*component.get("resources", ()), *component.get("components", ()), *patches, *scripts}
    assert used | {"kustomization.yaml"} == {path.name for path in folder.iterdir()}


# A test of its own for each set would let each process import the models, for two seconds.
@pytest.mark.parametrize(
    "sets", [TOGETHER, pytest.param(ALONE, marks=pytest.mark.slow)], ids=["together", "alone"]
)
def test_they_are_valid_and_restricted_as_they_stand_and_rendered(
    sets: list[list[str]], request: pytest.FixtureRequest
) -> None:
    what_they_add_is_valid()
    render = request.getfixturevalue("render")  # which skips the rest where kubectl is missing
    for names in sets:
        are_valid_and_restricted(render(*names))


def are_valid_and_restricted(rendered: dict[str, Resource]) -> None:
    assert rendered.keys() >= base.RESOURCES.keys()
    for name, resource in rendered.items():
        validate(resource)
        base.is_labelled(resource)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == "friendlyhello"
        if resource["kind"] == "AnalysisTemplate":
            (metric,) = resource["spec"]["metrics"]
            resource = job_of(metric)
            assert base.container(resource)["image"] == f"friendlyhello:{base.VERSION}"
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            is_restricted(resource)
            uses_what_is_there(resource, rendered)
        if name == "Deployment/web":
            assert base.container(resource)["image"] == f"friendlyhello:{base.VERSION}"


def is_restricted(resource: Resource) -> None:
    whole, own = base.pod(resource)["securityContext"], base.container(resource)["securityContext"]
    assert whole["runAsNonRoot"] is True
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert base.pod(resource)["automountServiceAccountToken"] is False


def uses_what_is_there(resource: Resource, rendered: dict[str, Resource]) -> None:
    """Each volume is mounted, and is of a Secret or ConfigMap that something makes."""
    made = {one["metadata"]["name"] for one in rendered.values()}
    made |= {one["spec"]["secretName"] for one in rendered.values() if one["kind"] == "Certificate"}
    volumes = base.pod(resource).get("volumes", ())
    claims = {one["metadata"]["name"] for one in resource["spec"].get("volumeClaimTemplates", ())}
    mounts = {one["name"] for one in base.container(resource).get("volumeMounts", ())}
    assert mounts == {one["name"] for one in volumes} | claims
    for one in volumes:
        source = one.get("secret") or one["configMap"]
        assert source.get("secretName", source.get("name")) in made or source.get("optional")
    for one in base.container(resource).get("env", ()):
        if one.get("value", "").startswith("/run/secrets/tls/"):
            assert "tls" in mounts


@pytest.mark.parametrize(
    "names",
    [WITHOUT_TLS, WITH_TLS, [name for name in WITHOUT_TLS if name != "canary"]],
    ids=["without tls", "with tls", "without a canary"],
)
def test_every_port_that_is_named_is_open(render: Render, names: list[str]) -> None:
    rendered = render(*names)

    def ports(service: str) -> list[Resource]:
        return rendered[f"Service/{service}"]["spec"]["ports"]

    for name in ("web", "web-canary"):
        if f"Service/{name}" not in rendered:
            continue
        deployment, (port,) = rendered[f"Deployment/{name}"], ports(name)
        selector = rendered[f"Service/{name}"]["spec"]["selector"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()
        assert deployment["spec"]["selector"]["matchLabels"] == selector
        assert port["targetPort"] == base.container(deployment)["ports"][0]["name"]
        number = base.container(deployment)["ports"][0]["containerPort"]
        environment = {one["name"]: one.get("value") for one in base.container(deployment)["env"]}
        assert int(environment.get("PORT", "80")) == number
    if "gateway" in names:
        (rule,) = rendered["HTTPRoute/web"]["spec"]["rules"]
        for one in rule["backendRefs"]:
            assert one["port"] == ports(one["name"])[0]["port"]
    if "ingress" in names:
        (rule,) = rendered["Ingress/web"]["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": "web", "port": {"name": "http"}}
        assert ports("web")[0]["name"] == "http"
    (endpoint,) = rendered["ServiceMonitor/web"]["spec"]["endpoints"]
    _, admin = base.container(rendered["Deployment/web"])["ports"]
    assert endpoint["targetPort"] == admin["name"]
    assert endpoint.get("scheme", "http") == "http"  # the admin port has no certificate
    url = rendered["ConfigMap/audit"]["data"]["URL"]
    scheme = "https" if "tls" in names else "http"
    assert url == f"{scheme}://web"
    authorities = rendered["ConfigMap/audit"]["data"].get("SSL_CERT_FILE")
    (mount,) = base.container(rendered["Job/audit"])["volumeMounts"]
    assert authorities == (f"{mount['mountPath']}/ca.crt" if "tls" in names else None)
    assert ports("web")[0]["port"] == {"http": 80, "https": 443}[scheme]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = base.container(rendered["Deployment/web"])[probe]["httpGet"]
        assert asked.get("scheme", "HTTP").lower() == scheme


def test_the_alerts_are_those_of_alerts_yaml() -> None:
    rules = yaml.safe_load((COMPONENTS / "monitor/rules.yaml").read_text())
    assert rules["spec"] == ALERTS, "make stamp copies them"


def test_each_alert_leads_to_where_the_documentation_is(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(base.BASE, tmp_path / "own")
    file, place = own / "components/monitor/documentation.yaml", "git.example.com/hello/main"
    file.write_text(file.read_text().replace("friendlyhello.example", place))
    monkeypatch.setattr(base, "BASE", own)
    rendered = render("monitor")
    assert "ConfigMap/documentation" not in rendered
    (group,) = rendered["PrometheusRule/friendlyhello"]["spec"]["groups"]
    for rule in group["rules"]:
        url = rule["annotations"]["runbook_url"]
        assert url.startswith(f"https://{place}/docs/watching.md#"), rule["alert"]


def test_the_dashboard_is_that_of_grafana_json_for_its_sidecar(render: Render) -> None:
    copy = COMPONENTS / "monitor/friendlyhello.json"
    whole = (ROOT / "deploy/grafana.json").read_text()
    assert copy.read_text() == whole, "make stamp copies it"
    dashboard = render("monitor")["ConfigMap/dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"] == {"friendlyhello.json": whole}


def test_the_monitor_selects_the_web_and_the_canary_and_not_redis(render: Render) -> None:
    rendered = render("gateway", "monitor", "canary")
    selector = rendered["ServiceMonitor/web"]["spec"]["selector"]
    (expression,) = selector["matchExpressions"]
    assert expression["operator"] == "In"
    selected = {
        one["metadata"]["name"]
        for one in rendered.values()
        if one["kind"] == "Service"
        and selector["matchLabels"].items() <= one["metadata"]["labels"].items()
        and one["metadata"]["labels"][expression["key"]] in expression["values"]
    }
    assert selected == {"web", "web-canary"}


def test_the_canary_is_the_web_with_another_image_and_one_visit_in_ten(render: Render) -> None:
    rendered = render("gateway", "canary")
    web, canary = (base.pod(rendered[f"Deployment/{name}"]) for name in ("web", "web-canary"))
    (own,), (other,) = web["containers"], canary["containers"]
    assert other["image"] == "friendlyhello:9.9.9"
    assert other["env"] == [*own["env"], {"name": "VERSION_LABEL", "value": "canary"}]
    assert other | {"image": own["image"], "env": own["env"]} == own
    del web["topologySpreadConstraints"]
    assert canary | {"containers": web["containers"]} == web
    (rule,) = rendered["HTTPRoute/web"]["spec"]["rules"]
    weights = {one["name"]: one["weight"] for one in rule["backendRefs"]}
    assert weights == {"web": 90, "web-canary": 10}
    assert rendered["HTTPRoute/web"]["spec"]["parentRefs"]
    (rule,) = rendered["NetworkPolicy/redis"]["spec"]["ingress"]
    admitted = [one["podSelector"]["matchLabels"] for one in rule["from"]]
    for name in ("web", "web-canary"):
        assert rendered[f"Deployment/{name}"]["spec"]["selector"]["matchLabels"] in admitted
    # Neither the Service nor the budget of web takes the canary for one of its own.
    labels = rendered["Deployment/web-canary"]["spec"]["template"]["metadata"]["labels"]
    for name in ("Service/web", "PodDisruptionBudget/web"):
        spec = rendered[name]["spec"]["selector"]
        assert not spec.get("matchLabels", spec).items() <= labels.items()


@pytest.mark.parametrize("names", [["rollouts"], ["rollouts", "tls"]], ids="+".join)
def test_a_rollout_goes_on_when_the_audit_of_the_new_version_and_of_both_holds(
    render: Render, names: list[str]
) -> None:
    rendered = render(*names)
    rollout = rendered["Rollout/web"]["spec"]
    scheme = "https" if "tls" in names else "http"
    weights, audited = [], []
    for step in rollout["strategy"]["canary"]["steps"]:
        if "setWeight" in step:
            weights.append(step["setWeight"])
            continue
        ((template,), (url,)) = step["analysis"]["templates"], step["analysis"]["args"]
        name = rendered[f"AnalysisTemplate/{template['templateName']}"]["spec"]["args"][0]["name"]
        assert url["name"] == name
        audited.append((weights[-1], url["value"]))
    assert weights == [10, 50]
    services = ("web-next", "web")
    assert audited == [(weight, f"{scheme}://{one}") for weight in weights for one in services]
    assert rollout["strategy"]["canary"]["canaryService"] == "web-next"
    for one in services:
        service = rendered[f"Service/{one}"]["spec"]
        assert service["selector"] == rollout["selector"]["matchLabels"]
        assert service["ports"][0]["port"] == {"http": 80, "https": 443}[scheme]
    deployment = rendered["Deployment/web"]
    assert rollout["selector"] == deployment["spec"]["selector"]
    for target in (rollout["workloadRef"], hpa(rendered)):
        assert rendered[f"{target['kind']}/{target['name']}"]["apiVersion"] == target["apiVersion"]
    assert rollout["workloadRef"]["kind"] == "Deployment"
    assert hpa(rendered)["kind"] == "Rollout"
    if "tls" in names:
        assert {*services} <= {*rendered["Certificate/web"]["spec"]["dnsNames"]}


def hpa(rendered: dict[str, Resource]) -> Resource:
    return dict(rendered["HorizontalPodAutoscaler/web"]["spec"]["scaleTargetRef"])


def test_flagger_asks_the_audit_of_the_new_version_and_both_reach_redis(render: Render) -> None:
    rendered = render("sentinel", "flagger")
    canary = rendered["Canary/web"]["spec"]
    for target in (canary["targetRef"], canary["autoscalerRef"]):
        assert rendered[f"{target['kind']}/{target['name']}"]["apiVersion"] == target["apiVersion"]
    assert canary["analysis"]["stepWeights"] == [10, 50]
    assert canary["analysis"]["threshold"] == 1, "one audit that fails takes it back"
    (hook,) = canary["analysis"]["webhooks"]
    assert hook["type"] == "rollout", "asked at each step, and its failure counts"
    assert hook["url"] == "http://audit-hook.friendlyhello/"
    deployment = rendered["Deployment/audit-hook"]
    container = base.container(deployment)
    service = rendered["Service/audit-hook"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"] == [
        {"name": "http", "port": 80, "targetPort": container["ports"][0]["name"]}
    ]
    assert container["ports"][0]["containerPort"] == 8080
    arguments = new_parser().parse_args(container["args"])
    assert arguments.url == "http://web-canary"  # as Flagger names it
    assert (arguments.max_failures, arguments.max_uncounted.text) == (0, "0")
    longest = arguments.wait + arguments.duration + 2 * arguments.timeout
    assert longest < float(hook["timeout"].removesuffix("s"))
    primary = {"app.kubernetes.io/name": "friendlyhello-primary"}
    for name in ("redis", "sentinel"):
        (rule,) = rendered[f"NetworkPolicy/{name}"]["spec"]["ingress"]
        peers = [one["podSelector"]["matchLabels"] for one in rule["from"]]
        assert primary | {"app.kubernetes.io/component": "web"} in peers
    of_primary = {"app.kubernetes.io/component": "web"} | primary
    budget = rendered["PodDisruptionBudget/web"]["spec"]["selector"]["matchLabels"]
    assert budget.items() <= of_primary.items()


def test_the_analysis_is_the_audits_pod_and_ends_by_itself(render: Render) -> None:
    rendered = render("rollouts", "audit")
    (metric,) = rendered["AnalysisTemplate/audit"]["spec"]["metrics"]
    made, audit = job_of(metric), rendered["Job/audit"]
    own, other = base.container(made), base.container(audit)
    for name in ("image", "command", "volumeMounts", "securityContext", "resources"):
        assert own[name] == other[name]
    assert base.pod(made)["volumes"] == base.pod(audit)["volumes"]
    arguments = new_parser().parse_args([*own["command"][2:], *own["args"]])
    assert (arguments.max_failures, arguments.max_uncounted.text) == (0, "0")
    longest = arguments.wait + arguments.duration + 2 * arguments.timeout
    assert longest < made["spec"]["activeDeadlineSeconds"] - 30
    assert made["spec"]["backoffLimit"] == 0


def test_web_canary_redis_and_sentinels_reach_one_another_and_nobody_else_them(
    render: Render,
) -> None:
    rendered = render("gateway", "canary", "sentinel")
    names = {"web", "web-canary", "redis", "sentinel"}
    for name in ("redis", "sentinel"):
        policy = rendered[f"NetworkPolicy/{name}"]["spec"]
        (rule,) = policy["ingress"]
        part = "app.kubernetes.io/component"
        assert {one["podSelector"]["matchLabels"][part] for one in rule["from"]} == names
        assert rule["ports"] == [{"protocol": "TCP", "port": name}]
        to = {one["to"][0]["podSelector"]["matchLabels"][part] for one in policy["egress"][:2]}
        assert to == {"redis", "sentinel"}
        assert {one["port"] for one in policy["egress"][2]["ports"]} == {53}
        assert "to" not in policy["egress"][2]
        stateful = rendered[f"StatefulSet/{name}"]
        assert stateful["spec"]["replicas"] == 3
        (port,) = base.container(stateful)["ports"]
        assert port["name"] == name == stateful["spec"]["serviceName"]
    for name in ("web", "web-canary"):
        container = base.container(rendered[f"Deployment/{name}"])
        settings = load(
            ["--port=80"], {one["name"]: one["value"] for one in container["env"] if "value" in one}
        )
        hosts = ",".join(f"sentinel-{number}.sentinel" for number in range(3))
        assert settings.redis_url == f"redis+sentinel://{hosts}/friendlyhello"
        assert settings.redis_wait == 1
        assert settings.redis_sentinel_password_file == settings.redis_password_file


def test_a_name_that_gives_pods_gives_them_while_they_start(render: Render) -> None:
    # Else resolvers keep for a while that the name has no address, after the pod is back, too.
    headless = [
        resource["spec"]
        for resource in render("sentinel").values()
        if resource["kind"] == "Service" and resource["spec"].get("clusterIP") == "None"
    ]
    assert len(headless) == 2
    assert all(spec["publishNotReadyAddresses"] is True for spec in headless)


def test_a_canary_without_a_gateway_is_refused(render: Render) -> None:
    with pytest.raises(AssertionError, match=r"no.* matches .*HTTPRoute"):
        render("canary")


def job(name: str = "Job/audit") -> tuple[Resource, dict[str, str]]:
    """The Job, and what its pod's environment is."""
    found = base.load((COMPONENTS / "audit/job.yaml").read_text())
    return found[name], found["ConfigMap/audit"]["data"]


def with_values(container: Resource, values: dict[str, str]) -> list[str]:
    """Return a container's arguments as Kubernetes fills them in."""
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], one) for one in container["args"]]


def test_the_job_audits_the_page_and_fails_when_the_audit_does(
    program: Callable[..., Program], valkey: Valkey
) -> None:
    server = program(f"--redis-url={valkey.url}", "--access-log=false", "--redis-timeout=60")
    container = base.container(job()[0])
    given = with_values(container, {"URL": server.url, "REPLICAS": "1"})

    def audit(*flags: str) -> subprocess.CompletedProcess[str]:
        assert container["command"][0] == "python"
        command = [sys.executable, *container["command"][1:], *given, *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)

    held = audit("--requests=100")  # the last one is heeded
    assert held.returncode == 0, held
    with ThreadPoolExecutor() as pool:
        failing = pool.submit(audit, "--requests=200", "--exclusive")
        while not failing.done():  # somebody else counts too
            valkey.client.incr("counter")
    assert failing.result().returncode == 1, failing.result()


def test_the_job_ends_by_itself_before_its_pod_is_taken_away_with_the_log() -> None:
    resource, environment = job()
    arguments = new_parser().parse_args(with_values(base.container(resource), environment))
    longest = arguments.wait + arguments.duration + 2 * arguments.timeout
    assert longest < resource["spec"]["activeDeadlineSeconds"] - 30  # its image may have to come
    assert resource["spec"]["backoffLimit"] == 0
    assert base.pod(resource)["restartPolicy"] == "Never"
    least = base.RESOURCES["HorizontalPodAutoscaler/web"]["spec"]["minReplicas"]
    assert (arguments.url, arguments.replicas) == ("http://web", least)
    assert (arguments.max_failures, arguments.max_uncounted.text) == (0, "0")


def test_on_openshift_no_id_and_no_low_port_is_asked_for(render: Render) -> None:
    for name, resource in render(*WITHOUT_TLS).items():
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            context = base.pod(resource)["securityContext"]
            assert context.keys() == {"runAsNonRoot", "seccompProfile"}, name
            for port in base.container(resource).get("ports", ()):
                assert port["containerPort"] > 1023

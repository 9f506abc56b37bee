"""deploy/kubernetes/components/: each alone and all that go together, rendered and validated."""

import re

import pytest
import yaml

from audit.options import new_parser
from config import VERSION, load
from tests.deploy import manifests as base
from tests.deploy.manifests import COMPONENTS, LISTED, Resource, container, job_of, pod, render
from tests.deploy.test_validation import validate
from tests.support import ROOT

NAMES = sorted(path.name for path in COMPONENTS.iterdir())

#: A pod that speaks HTTPS itself is behind no gateway and no ingress.
WITHOUT_TLS = [name for name in LISTED if name != "tls"]
WITH_TLS = [name for name in LISTED if name not in ("gateway", "ingress", "canary", "flagger")]

# What the pods are spoken to with does not fit in all of them together, but each resource is valid.
TOGETHER = [[], WITHOUT_TLS, WITH_TLS, LISTED]
ALONE = [["gateway", name] if name == "canary" else [name] for name in NAMES]

PORTS = {"http": 80, "https": 443}

COMPONENT = "app.kubernetes.io/component"


def test_each_component_is_listed_uses_all_its_files_and_has_a_section_that_says_how() -> None:
    assert sorted(LISTED) == NAMES
    page = (ROOT / "docs/deploy.md").read_text()
    for folder in COMPONENTS.iterdir():
        component = yaml.safe_load((folder / "kustomization.yaml").read_text())
        told = (component["apiVersion"], component["kind"])
        assert told == ("kustomize.config.k8s.io/v1alpha1", "Component")
        patches = {patch["path"] for patch in component.get("patches", ()) if "path" in patch}
        scripts = [one for made in component.get("configMapGenerator", ()) for one in made["files"]]
        used = {*component.get("resources", ()), *component.get("components", ()), *scripts}
        assert used | patches | {"kustomization.yaml"} == {path.name for path in folder.iterdir()}
        section = page.partition(f"\n#### {folder.name}\n")[2].partition("\n#")[0]
        found = re.findall(r"^- \*\*(Needs|Add|See it work|Remove)\b", section, re.M)
        assert found == ["Needs", "Add", "See it work", "Remove"], folder.name


@pytest.mark.parametrize(
    ("sets", "by_models"),
    [(TOGETHER, False), pytest.param(ALONE + TOGETHER, True, marks=pytest.mark.slow)],
    ids=["together", "alone"],
)
def test_they_are_valid_and_restricted_as_they_stand_and_rendered(
    sets: list[list[str]], by_models: bool
) -> None:
    as_they_stand = [*base.RESOURCES.values()]
    # Kustomize's own, and parts of resources, which are whole when they are rendered.
    parts = ("kustomization.yaml", "canary/route.yaml", "sentinel/redis.yaml")
    for file in COMPONENTS.rglob("*.yaml"):
        if not str(file).endswith(parts):
            for name, resource in base.load(file.read_text()).items():
                if name == "Deployment/web-canary":  # its pod is that of web
                    resource["spec"]["template"]["spec"] = pod(base.WEB)
                as_they_stand.append(resource)
    for resource in as_they_stand:
        validate(resource, by_models=by_models)
    for names in sets:
        are_valid_and_restricted(render(*names), by_models)


def are_valid_and_restricted(rendered: dict[str, Resource], by_models: bool) -> None:
    assert rendered.keys() >= base.RESOURCES.keys()
    for resource in rendered.values():
        validate(resource, by_models=by_models)
        is_labelled(resource)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == "friendlyhello"
        if resource["kind"] == "AnalysisTemplate":
            resource = job_of(resource["spec"]["metrics"][0])
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            base.is_restricted(resource)
            uses_what_is_there(resource, rendered)
            tag = "9.9.9" if resource["metadata"]["name"] == "web-canary" else VERSION
            redis = container(base.REDIS)["image"]
            assert container(resource)["image"] in (f"friendlyhello:{tag}", redis)


def is_labelled(resource: Resource) -> None:
    """By https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/."""
    prefix = "app.kubernetes.io/"
    common = {f"{prefix}{name}": "friendlyhello" for name in ("name", "instance", "part-of")}
    labels = resource["metadata"]["labels"]
    component = {COMPONENT: labels[COMPONENT]}
    assert labels.items() >= (common | {f"{prefix}version": VERSION}).items()
    if template := resource.get("spec", {}).get("template", {}).get("metadata"):
        assert template["labels"] == common | component


def uses_what_is_there(resource: Resource, rendered: dict[str, Resource]) -> None:
    """Each volume is mounted, and is of a Secret or ConfigMap that something makes."""
    made = {one["metadata"]["name"] for one in rendered.values()}
    made |= {one["spec"]["secretName"] for one in rendered.values() if one["kind"] == "Certificate"}
    volumes = pod(resource).get("volumes", ())
    claims = {one["metadata"]["name"] for one in resource["spec"].get("volumeClaimTemplates", ())}
    mounts = {one["name"] for one in container(resource).get("volumeMounts", ())}
    assert mounts == {one["name"] for one in volumes} | claims
    for one in volumes:
        source = one.get("secret") or one["configMap"]
        assert source.get("secretName", source.get("name")) in made or source.get("optional")
    files = [one.get("value", "") for one in container(resource).get("env", ())]
    assert "tls" in mounts or not any(file.startswith("/run/secrets/tls/") for file in files)


def admitted(rendered: dict[str, Resource], name: str) -> list[Resource]:
    """The labels of the pods that may reach those of a name."""
    (rule,) = rendered[f"NetworkPolicy/{name}"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": name}]
    return [one["podSelector"]["matchLabels"] for one in rule["from"]]


def ports(rendered: dict[str, Resource], service: str) -> list[Resource]:
    return rendered[f"Service/{service}"]["spec"]["ports"]


def labels_of(deployment: Resource) -> Resource:
    return deployment["spec"]["template"]["metadata"]["labels"]


in_each_way = pytest.mark.parametrize(
    "names",
    [WITHOUT_TLS, WITH_TLS, [name for name in WITHOUT_TLS if name != "canary"]],
    ids=["without tls", "with tls", "without a canary"],
)


@in_each_way
def test_every_port_that_is_named_is_open(names: list[str]) -> None:
    rendered = render(*names)
    scheme = "https" if "tls" in names else "http"
    for name in {"web", "web-canary"} if "canary" in names else {"web"}:
        assert ports(rendered, name) == [
            {"name": scheme, "port": PORTS[scheme], "targetPort": "http"}
        ]
        deployment = rendered[f"Deployment/{name}"]
        selector = rendered[f"Service/{name}"]["spec"]["selector"]
        assert deployment["spec"]["selector"]["matchLabels"] == selector
        assert selector.items() <= labels_of(deployment).items()
        port = int(base.environment(deployment).get("PORT", "80"))
        assert container(deployment)["ports"][0] == {"name": "http", "containerPort": port}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container(deployment)[probe]["httpGet"]
            assert asked.get("scheme", "HTTP").lower() == scheme
    if "gateway" in names:
        (rule,) = rendered["HTTPRoute/web"]["spec"]["rules"]
        for one in rule["backendRefs"]:
            assert one["port"] == ports(rendered, one["name"])[0]["port"]
    if "ingress" in names:
        (rule,) = rendered["Ingress/web"]["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": "web", "port": {"name": "http"}}


@in_each_way
def test_the_monitor_looks_at_web_and_canary_and_the_audit_where_they_serve(
    names: list[str],
) -> None:
    rendered = render(*names)
    monitor = rendered["ServiceMonitor/web"]["spec"]
    (expression,) = monitor["selector"]["matchExpressions"]
    assert expression["operator"] == "In"
    selected = {
        name
        for name, one in rendered.items()
        if name.startswith("Service/")
        and monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        and one["metadata"]["labels"][expression["key"]] in expression["values"]
    }
    assert selected == {"Service/web", "Service/web-canary"} & rendered.keys()
    (endpoint,) = monitor["endpoints"]
    _, admin = container(rendered["Deployment/web"])["ports"]
    assert endpoint["targetPort"] == admin["name"]
    assert endpoint.get("scheme", "http") == "http"  # the admin port has no certificate
    environment = rendered["ConfigMap/audit"]["data"]
    (mount,) = container(rendered["Job/audit"])["volumeMounts"]
    url, authorities = "http://web", None
    if "tls" in names:
        url, authorities = "https://web", f"{mount['mountPath']}/ca.crt"
    assert (environment["URL"], environment.get("SSL_CERT_FILE")) == (url, authorities)


def test_the_canary_is_the_web_with_another_image_and_one_visit_in_ten() -> None:
    rendered = render("gateway", "canary")
    web, canary = (pod(rendered[f"Deployment/{name}"]) for name in ("web", "web-canary"))
    (own,), (other,) = web["containers"], canary["containers"]
    label = {"name": "VERSION_LABEL", "value": "canary"}
    assert other == own | {"image": "friendlyhello:9.9.9", "env": [*own["env"], label]}
    spread = {"topologySpreadConstraints": web["topologySpreadConstraints"]}
    assert canary | {"containers": [own]} | spread == web
    assert not canary.keys() & spread.keys()
    route = rendered["HTTPRoute/web"]["spec"]
    assert route["parentRefs"]
    weights = {one["name"]: one["weight"] for one in route["rules"][0]["backendRefs"]}
    assert weights == {"web": 90, "web-canary": 10}
    assert admitted(rendered, "redis") == [
        rendered[f"Deployment/{name}"]["spec"]["selector"]["matchLabels"] for name in weights
    ]
    # Neither the Service nor the budget of web takes the canary for one of its own.
    labels = labels_of(rendered["Deployment/web-canary"])
    for name in ("Service/web", "PodDisruptionBudget/web"):
        spec = rendered[name]["spec"]["selector"]
        assert not spec.get("matchLabels", spec).items() <= labels.items()


def targets_are_there(rendered: dict[str, Resource], *targets: Resource) -> None:
    for target in targets:
        assert rendered[f"{target['kind']}/{target['name']}"]["apiVersion"] == target["apiVersion"]


@pytest.mark.parametrize("names", [["rollouts"], ["rollouts", "tls"]], ids="+".join)
def test_a_rollout_goes_on_when_the_audit_of_the_new_version_and_of_both_holds(
    names: list[str],
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
    services = ("web-next", "web")
    assert audited == [(weight, f"{scheme}://{one}") for weight in (10, 50) for one in services]
    assert rollout["strategy"]["canary"]["canaryService"] == "web-next"
    for one in services:
        selector = rendered[f"Service/{one}"]["spec"]["selector"]
        assert selector == rollout["selector"]["matchLabels"]
        assert ports(rendered, one)[0]["port"] == PORTS[scheme]
    assert rollout["selector"] == rendered["Deployment/web"]["spec"]["selector"]
    scaled = rendered["HorizontalPodAutoscaler/web"]["spec"]["scaleTargetRef"]
    targets_are_there(rendered, rollout["workloadRef"], scaled)
    assert (rollout["workloadRef"]["kind"], scaled["kind"]) == ("Deployment", "Rollout")
    if "tls" in names:
        assert {*services} <= {*rendered["Certificate/web"]["spec"]["dnsNames"]}


def test_flagger_asks_the_audit_of_the_new_version_and_both_reach_redis() -> None:
    rendered = render("sentinel", "flagger")
    canary = rendered["Canary/web"]["spec"]
    targets_are_there(rendered, canary["targetRef"], canary["autoscalerRef"])
    assert canary["analysis"]["stepWeights"] == [10, 50]
    assert canary["analysis"]["threshold"] == 1, "one audit that fails takes it back"
    (hook,) = canary["analysis"]["webhooks"]
    assert hook["type"] == "rollout", "asked at each step, and its failure counts"
    assert hook["url"] == "http://audit-hook.friendlyhello/"
    deployment = rendered["Deployment/audit-hook"]
    selector = rendered["Service/audit-hook"]["spec"]["selector"]
    assert selector.items() <= labels_of(deployment).items()
    assert container(deployment)["command"] == ["python", "-m", "audit.hook"]
    assert container(deployment)["ports"] == [{"name": "http", "containerPort": 8080}]
    assert ports(rendered, "audit-hook") == [{"name": "http", "port": 80, "targetPort": "http"}]
    url, longest, _ = audit_by(container(deployment)["args"])
    assert url == "http://web-canary"  # as Flagger names it
    assert longest < float(hook["timeout"].removesuffix("s"))
    primary = {"app.kubernetes.io/name": "friendlyhello-primary", COMPONENT: "web"}
    assert all(primary in admitted(rendered, name) for name in ("redis", "sentinel"))
    budget = rendered["PodDisruptionBudget/web"]["spec"]["selector"]["matchLabels"]
    assert budget.items() <= primary.items()


def audit_by(given: list[str]) -> tuple[str, float, int]:
    """Return an audit's URL, the most seconds that it takes, and for how many replicas it waits."""
    arguments = new_parser().parse_args(given)
    assert (arguments.max_failures, arguments.max_uncounted.text) == (0, "0")
    longest = arguments.wait + arguments.duration + 2 * arguments.timeout
    return arguments.url, longest, arguments.replicas


def test_jobs_that_audit_are_alike_and_end_by_themselves_before_the_log_is_taken_away() -> None:
    rendered = render("rollouts", "audit")
    (metric,) = rendered["AnalysisTemplate/audit"]["spec"]["metrics"]
    made, audit = job_of(metric), rendered["Job/audit"]
    own, other = container(made), container(audit)
    for name in ("image", "command", "volumeMounts", "securityContext", "resources"):
        assert own[name] == other[name]
    assert pod(made)["volumes"] == pod(audit)["volumes"]
    environment = rendered["ConfigMap/audit"]["data"]
    assert own["command"] == ["python", "check.py"]
    for job in (made, audit):
        url, longest, replicas = audit_by(with_values(container(job), environment))
        assert longest < job["spec"]["activeDeadlineSeconds"] - 30  # its image may have to come
        assert (job["spec"]["backoffLimit"], pod(job)["restartPolicy"]) == (0, "Never")
    least = rendered["HorizontalPodAutoscaler/web"]["spec"]["minReplicas"]
    assert (url, replicas) == ("http://web", least)  # those of the Job


def with_values(container: Resource, values: dict[str, str]) -> list[str]:
    """Return a container's arguments as Kubernetes fills them in."""
    known = re.compile(r"\$\((" + "|".join(values) + r")\)")
    return [known.sub(lambda name: values[name[1]], one) for one in container["args"]]


def test_web_canary_redis_and_sentinels_reach_one_another_and_nobody_else_them() -> None:
    rendered = render("gateway", "canary", "sentinel")
    names = {"web", "web-canary", "redis", "sentinel"}
    for name in ("redis", "sentinel"):
        policy = rendered[f"NetworkPolicy/{name}"]["spec"]
        assert {labels[COMPONENT] for labels in admitted(rendered, name)} == names
        to = {one["to"][0]["podSelector"]["matchLabels"][COMPONENT] for one in policy["egress"][:2]}
        assert to == {"redis", "sentinel"}
        assert {one["port"] for one in policy["egress"][2]["ports"]} == {53}
        assert "to" not in policy["egress"][2]
        stateful = rendered[f"StatefulSet/{name}"]
        assert stateful["spec"]["replicas"] == 3
        (port,) = container(stateful)["ports"]
        assert port["name"] == name == stateful["spec"]["serviceName"]
    hosts = ",".join(f"sentinel-{number}.sentinel" for number in range(3))
    for name in ("web", "web-canary"):
        settings = load(["--port=80"], base.environment(rendered[f"Deployment/{name}"]))
        assert settings.redis_url == f"redis+sentinel://{hosts}/friendlyhello"
        assert settings.redis_wait == 1
        assert settings.redis_sentinel_password_file == settings.redis_password_file
    # A name that gives pods gives them while they start. Else resolvers keep for a while that the
    # name has no address, after the pod is back, too.
    services = [one["spec"] for one in rendered.values() if one["kind"] == "Service"]
    headless = [spec for spec in services if spec.get("clusterIP") == "None"]
    assert [spec["publishNotReadyAddresses"] for spec in headless] == [True, True]


def test_a_canary_without_a_gateway_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"no.* matches .*HTTPRoute"):
        render("canary")


def test_on_openshift_no_id_and_no_low_port_is_asked_for() -> None:
    for name, resource in render(*WITHOUT_TLS).items():
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            context = pod(resource)["securityContext"]
            assert context.keys() == {"runAsNonRoot", "seccompProfile"}, name
            for port in container(resource).get("ports", ()):
                assert port["containerPort"] > 1023

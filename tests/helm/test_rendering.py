import base64
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.helm.generate import CHART
from tests.support.helm import HELM_3, HELM_4, NAMESPACE, RELEASE, REQUIRED, Helm, only
from tests.support.helm_cases import CASES
from tests.support.kubernetes_api import running

_OLDEST, _NEWEST = "1.27", "1.37"
_ZONE = "topology.kubernetes.io/zone"
_SCHEMAS = yaml.safe_load(Path(__file__).with_name("operator_schemas.yaml").read_text("utf-8"))

every_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


@every_case
def test_what_is_rendered_is_valid_in_every_kubernetes_that_the_chart_is_for(
    values: dict[str, Any], helm: Helm, home: Path
) -> None:
    for document in helm.template(values, home):
        if schema := _SCHEMAS.get(document["kind"]):
            jsonschema.validate(document, schema)
            continue
        for version in (_OLDEST, _NEWEST):
            # Raises for a kind that it does not know, too.
            assert kubernetes_validate.validate(document, version, strict=True) == version


@every_case
def test_helm_finds_nothing_to_complain_about(values: dict[str, Any], helm: Helm, home: Path) -> None:
    file = home / "values.yaml"
    file.write_text(yaml.safe_dump({**REQUIRED, **values}), "utf-8")
    said = helm.run("lint", "--strict", str(CHART), "--values", str(file), home=home)
    assert "1 chart(s) linted, 0 chart(s) failed" in said


@every_case
def test_both_releases_of_helm_render_the_same(values: dict[str, Any], home: Path) -> None:
    assert HELM_3.template(values, home) == HELM_4.template(values, home)


@pytest.mark.parametrize("limit", ["2e9", "1.5E9", "1P", "1Ei", 2_000_000_000])
def test_memory_may_be_written_in_every_way_that_kubernetes_or_a_setting_knows(
    limit: str | int, helm: Helm, home: Path
) -> None:
    helm.template({"resources": {"limits": {"memory": limit}}}, home)


def test_the_package_renders_as_the_folder_does(helm: Helm, home: Path) -> None:
    helm.run("package", str(CHART), "--destination", str(home), home=home)
    (package,) = home.glob("tablehouse-*.tgz")
    values = CASES["tested and monitored"]
    assert helm.template(values, home, package) == helm.template(values, home)


@every_case
def test_objects_have_names_of_their_own_and_refer_to_ones_that_exist(values: dict[str, Any], home: Path) -> None:
    objects = HELM_4.template(values, home)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)

    workers = only(objects, "StatefulSet")["spec"]
    pod = workers["template"]["spec"]
    assert ("Service", workers["serviceName"]) in names
    configured = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert {("ConfigMap", name) for name in configured} <= set(names)
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    claimed = {claim["metadata"]["name"] for claim in workers.get("volumeClaimTemplates", [])}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


@every_case
def test_what_selects_pods_selects_the_workers_and_not_the_test(values: dict[str, Any], home: Path) -> None:
    objects = HELM_4.template(values, home)
    workers = only(objects, "StatefulSet")["spec"]
    labels = workers["template"]["metadata"]["labels"]
    selectors = [workers["selector"]["matchLabels"]]
    for one in objects:
        match one["kind"]:
            case "Service":
                selectors.append(one["spec"]["selector"])
            case "PodDisruptionBudget":
                selectors.append(one["spec"]["selector"]["matchLabels"])
            case "NetworkPolicy":
                selectors.append(one["spec"]["podSelector"]["matchLabels"])
    tests = [one["metadata"]["labels"] for one in objects if one["kind"] == "Pod"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= test.items() for test in tests)


def test_a_service_monitor_finds_the_service_for_clients_alone(home: Path) -> None:
    objects = HELM_4.template(CASES["tested and monitored"], home)
    selector = only(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [one for one in objects if one["kind"] == "Service"]
    found = [one["metadata"]["name"] for one in services if selector.items() <= one["metadata"]["labels"].items()]
    assert found == ["tablehouse"]


@every_case
def test_pods_keep_to_the_restricted_pod_security_standard(values: dict[str, Any], home: Path) -> None:
    objects = HELM_4.template(values, home)
    pods = [only(objects, "StatefulSet")["spec"]["template"]["spec"]]
    pods += [one["spec"] for one in objects if one["kind"] == "Pod"]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_peers_find_workers_that_are_not_ready(home: Path) -> None:
    service = only(HELM_4.template({}, home), "Service", "tablehouse-headless")["spec"]
    assert service["publishNotReadyAddresses"] is True
    assert service["clusterIP"] == "None"


def test_the_internal_port_is_open_to_workers_alone(home: Path) -> None:
    objects = HELM_4.template({}, home)
    public, probes, internal = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in public["ports"]] == [8080]
    assert "from" not in public
    assert [port["port"] for port in probes["ports"]] == [9090]
    assert "from" not in probes
    assert [port["port"] for port in internal["ports"]] == [9080]
    (peers,) = internal["from"]
    selector = only(objects, "StatefulSet")["spec"]["selector"]
    assert peers == {"podSelector": selector}


def test_kubernetes_and_prometheus_ask_at_the_port_for_probes_which_no_service_has(home: Path) -> None:
    objects = HELM_4.template({"metrics": {"serviceMonitor": {"enabled": True}}}, home)
    (container,) = only(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]}["probe"] == 9090
    assert [one["value"] for one in container["env"] if one["name"] == "TABLEHOUSE_PROBE_PORT"] == ["9090"]
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")} == {"probe"}
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["targetPort"], endpoint["path"]) == ("probe", "/metrics")
    services = [each for each in objects if each["kind"] == "Service"]
    assert {port["targetPort"] for each in services for port in each["spec"]["ports"]} == {"http", "internal"}


def test_a_closed_public_port_lets_the_test_in(home: Path) -> None:
    objects = HELM_4.template(CASES["closed network"], home)
    public, probes, *_ = only(objects, "NetworkPolicy")["spec"]["ingress"]
    # Prometheus is in the cluster.
    assert probes["from"] == [{"namespaceSelector": {}}]
    (clients,) = public["from"]
    assert clients["namespaceSelector"] == {}
    assert clients["podSelector"]["matchLabels"].items() <= only(objects, "Pod")["metadata"]["labels"].items()


def test_logins_and_certificates_come_from_secrets_under_the_names_of_the_settings(home: Path) -> None:
    def variables(case: str) -> dict[str, Any]:
        (container,) = only(HELM_4.template(CASES[case], home), "StatefulSet")["spec"]["template"]["spec"]["containers"]
        return {
            one["name"].removeprefix("TABLEHOUSE_KAFKA_"): one.get("value") or one["valueFrom"]["secretKeyRef"]
            for one in container["env"]
            if one["name"].startswith("TABLEHOUSE_KAFKA_")
        }

    assert variables("what is required") == {"SECURITY_PROTOCOL": "PLAINTEXT"}
    assert variables("a login by password over TLS") == {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "SCRAM-SHA-512",
        "SASL_USERNAME": {"name": "kafka-login", "key": "username"},
        "SASL_PASSWORD": {"name": "kafka-login", "key": "password"},
        "CA": "/etc/kafka-tls/ca.crt",
    }
    assert variables("a login by token") == {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "OAUTHBEARER",
        "OAUTH_TOKEN_URL": "https://login.example.com/token?a=b",
        "OAUTH_CLIENT_ID": {"name": "kafka-client", "key": "client-id"},
        "OAUTH_CLIENT_SECRET": {"name": "kafka-client", "key": "client-secret"},
        "OAUTH_SCOPE": "kafka: read",
    }
    assert variables("certificates on both sides") == {
        "SECURITY_PROTOCOL": "SSL",
        "CA": "/etc/kafka-tls/ca.crt",
        "CERTIFICATE": "/etc/kafka-tls/tls.crt",
        "KEY": "/etc/kafka-tls/tls.key",
        "KEY_PASSWORD": {"name": "kafka-tls", "key": "password"},
    }


def test_the_files_of_certificates_are_those_that_the_settings_name(home: Path) -> None:
    for case, files in (
        ("a login by password over TLS", ["ca.crt"]),
        ("certificates on both sides", ["ca.crt", "tls.crt", "tls.key"]),
    ):
        pod = only(HELM_4.template(CASES[case], home), "StatefulSet")["spec"]["template"]["spec"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "kafka-tls"]
        assert volume["secret"]["secretName"] == "kafka-tls"
        assert [item["path"] for item in volume["secret"]["items"]] == files
        (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "kafka-tls"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/etc/kafka-tls", True)


def test_pods_are_replaced_when_the_tables_change_and_only_then(home: Path) -> None:
    def template(values: dict[str, Any]) -> Any:
        return only(HELM_4.template(values, home), "StatefulSet")["spec"]["template"]

    assert template({}) == template({"replicaCount": 5})
    assert template({}) != template({"tables": CASES["every kind of table"]["tables"]})


def test_an_autoscaler_takes_no_worker_away_and_adds_one_at_a_time(home: Path) -> None:
    objects = HELM_4.template(CASES["autoscaling"], home)
    behaviour = only(objects, "HorizontalPodAutoscaler")["spec"]["behavior"]
    assert behaviour["scaleDown"] == {"selectPolicy": "Disabled"}
    assert behaviour["scaleUp"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]


def test_an_autoscaled_release_begins_with_the_fewest_workers(helm: Helm, home: Path) -> None:
    assert only(helm.template(CASES["autoscaling"], home), "StatefulSet")["spec"]["replicas"] == 2


def test_with_an_autoscaler_an_upgrade_keeps_the_workers_that_run(helm: Helm, home: Path) -> None:
    for replicas in (5, 0):
        with running(RELEASE, NAMESPACE, replicas) as flags:
            autoscaled = helm.template(CASES["autoscaling"], home, CHART, *flags)
            fixed = helm.template({"replicaCount": 4}, home, CHART, *flags)
        assert only(autoscaled, "StatefulSet")["spec"]["replicas"] == replicas
        assert only(fixed, "StatefulSet")["spec"]["replicas"] == 4


def test_a_number_of_workers_that_another_owner_has_is_kept_and_not_given(helm: Helm, home: Path) -> None:
    assert "replicas" not in only(helm.template({"replicaCount": None}, home), "StatefulSet")["spec"]
    for replicas in (5, 0):
        with running(RELEASE, NAMESPACE, replicas) as flags:
            objects = helm.template({"replicaCount": None}, home, CHART, *flags)
        assert only(objects, "StatefulSet")["spec"]["replicas"] == replicas


def test_workers_of_a_zone_run_on_its_nodes_and_are_not_spread_over_zones(home: Path) -> None:
    objects = HELM_4.template({**CASES["a zone of a group"], "nodeSelector": {"disk": "ssd"}}, home)
    pod = only(objects, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "ssd", _ZONE: "eu-1a"}
    assert [one["topologyKey"] for one in pod["topologySpreadConstraints"]] == ["kubernetes.io/hostname"]
    # The test may have to tolerate what the workers do.
    assert only(objects, "Pod")["spec"]["nodeSelector"] == pod["nodeSelector"]


def test_a_zone_that_the_values_place_themselves_is_left_to_them(home: Path) -> None:
    def selector(**placement: Any) -> Any:
        pod = only(HELM_4.template({"zone": "rack-1", **placement}, home), "StatefulSet")["spec"]["template"]["spec"]
        return pod.get("nodeSelector")

    def affinity(key: str, value: str) -> Any:
        term = {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}

    assert selector(nodeSelector={_ZONE: "eu-1a"}) == {_ZONE: "eu-1a"}
    assert selector(nodeSelector={"rack": "rack-1"}) == {"rack": "rack-1"}
    assert selector(affinity=affinity(_ZONE, "eu-1a")) is None
    assert selector(affinity=affinity("rack", "rack-1")) is None
    assert selector(affinity=affinity("arch", "arm64")) == {_ZONE: "rack-1"}


def test_a_constraint_of_the_values_keeps_its_own_selector(home: Path) -> None:
    constraint = {"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
    others = {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}
    own = {**constraint, "topologyKey": _ZONE, "labelSelector": others}
    objects = HELM_4.template({"zone": "eu-1a", "topologySpreadConstraints": [constraint, own]}, home)
    workers = only(objects, "StatefulSet")["spec"]
    with_default, with_own = workers["template"]["spec"]["topologySpreadConstraints"]
    assert with_default == {**constraint, "labelSelector": workers["selector"]}
    assert with_own == own


def test_one_budget_can_be_that_of_a_whole_group(home: Path) -> None:
    def rendered(release: str, **values: Any) -> list[dict[str, Any]]:
        return HELM_4.template(
            {"settings": {"group": "shop", "shutdown_timeout": "25s"}, **values}, home, release=release
        )

    one = rendered("tablehouse-a", podDisruptionBudget={"wholeGroup": True})
    other = rendered("tablehouse-b", podDisruptionBudget={"enabled": False})
    selector = only(one, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    for objects in (one, other):
        assert selector.items() <= only(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    assert not [document for document in other if document["kind"] == "PodDisruptionBudget"]


def test_groups_have_labels_of_their_own_however_long_they_are(home: Path) -> None:
    def label(group: str | int) -> Any:
        objects = HELM_4.template({"settings": {"group": group, "shutdown_timeout": "25s"}}, home)
        return only(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]["tablehouse-group"]

    assert label("shop.Eu_1") == "shop.Eu_1"
    assert label(17) == "17"
    labels = {label("g" * 99 + end) for end in ("a", "b")} | {label("shop-"), label("shop")}
    assert len(labels) == 4
    assert all(re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?", one) for one in labels)


def test_labels_that_are_given_twice_are_there_once_as_the_more_particular_says(home: Path) -> None:
    objects = HELM_4.template(CASES["names, image and labels"], home)
    labels = {one["kind"]: one["metadata"]["labels"] for one in objects}
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert (labels[kind]["release"], labels[kind]["team"]) == ("prometheus", "data")
    assert only(objects, "ConfigMap", "rows-dashboard")["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert labels["Pod"]["rows-client"] == "true"


def test_names_of_digits_stay_texts(home: Path) -> None:
    values = CASES["tested and monitored"]
    for document in HELM_4.template(values, home, release="123", namespace="456"):
        if schema := _SCHEMAS.get(document["kind"]):
            jsonschema.validate(document, schema)
        else:
            kubernetes_validate.validate(document, _NEWEST, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"


def test_the_test_of_the_release_stays_where_it_failed_and_runs_where_the_workers_may(home: Path) -> None:
    values = {**CASES["placed"], "test": {"table": "airlines", "key": "UA"}}
    objects = HELM_4.template(values, home)
    test, workers = only(objects, "Pod"), only(objects, "StatefulSet")["spec"]["template"]["spec"]
    assert test["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert (test["spec"]["tolerations"], test["spec"]["nodeSelector"]) == (workers["tolerations"], {"disk": "ssd"})
    assert {"requests", "limits"} <= test["spec"]["containers"][0]["resources"].keys()


def test_nothing_but_what_was_asked_for_is_made(home: Path) -> None:
    kinds = sorted(one["kind"] for one in HELM_4.template(CASES["bare"], home))
    assert kinds == ["ConfigMap", "Service", "Service", "StatefulSet"]


def test_notes_say_how_to_ask_for_a_row_and_what_is_unsafe(helm: Helm, home: Path) -> None:
    notes = _notes({**CASES["no volumes"], "networkPolicy": {"enabled": False}}, helm, home)
    assert "/tables/airlines:get?key=" in notes
    assert "WITHOUT persistence" in notes
    assert "WITHOUT networkPolicy the internal port, 9080," in notes


def test_notes_warn_of_nothing_when_there_is_nothing_to_warn_of(helm: Helm, home: Path) -> None:
    assert "WITHOUT" not in _notes({}, helm, home)


def _notes(values: dict[str, Any], helm: Helm, home: Path) -> str:
    # Helm shows notes only when it talks to a cluster: here an object of a copy of the chart carries them.
    chart = Path(shutil.copytree(CHART, home / "chart"))
    (chart / "templates" / "NOTES.txt").rename(chart / "files" / "notes.txt")
    notes = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "notes"},
        "binaryData": {"notes": '{{ tpl (.Files.Get "files/notes.txt") . | b64enc }}'},
    }
    objects = helm.template({**values, "extraObjects": [notes]}, home, chart)
    return base64.b64decode(only(objects, "ConfigMap", "notes")["binaryData"]["notes"]).decode()

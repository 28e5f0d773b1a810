import base64
import shutil
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.helm.generate import CHART
from tests.support.helm import HELM_3, HELM_4, REQUIRED, Helm, only
from tests.support.helm_cases import CASES

_OLDEST, _NEWEST = "1.27", "1.37"
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
    public, internal = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in public["ports"]] == [8080]
    assert "from" not in public
    assert [port["port"] for port in internal["ports"]] == [9080]
    (peers,) = internal["from"]
    selector = only(objects, "StatefulSet")["spec"]["selector"]
    assert peers == {"podSelector": selector}


def test_a_closed_public_port_lets_the_test_in(home: Path) -> None:
    objects = HELM_4.template(CASES["closed network"], home)
    public = only(objects, "NetworkPolicy")["spec"]["ingress"][0]
    (clients,) = public["from"]
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


def test_an_autoscaler_takes_no_worker_away_and_decides_their_number_alone(home: Path) -> None:
    objects = HELM_4.template(CASES["autoscaling"], home)
    behaviour = only(objects, "HorizontalPodAutoscaler")["spec"]["behavior"]
    assert behaviour["scaleDown"] == {"selectPolicy": "Disabled"}
    assert behaviour["scaleUp"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]
    assert "replicas" not in only(objects, "StatefulSet")["spec"]


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

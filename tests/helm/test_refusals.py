from pathlib import Path
from typing import Any

import pytest

from tests.support.helm import Helm, HelmError
from tests.support.helm_cases import CASES

_TABLE = {"name": "users", "source": {"topic": "users", "key": "string", "value": "json"}}


def _table(**source: Any) -> dict[str, Any]:
    return {"tables": [{**_TABLE, "source": {**_TABLE["source"], **source}}]}  # type: ignore[dict-item]


def _kafka(**given: Any) -> dict[str, Any]:
    return {"kafka": {"bootstrapServers": "kafka:9092", **given}}


def _registry(**given: str) -> dict[str, Any]:
    return {"settings": {"schema_registry": "https://registry:8081"}, "schemaRegistry": given}


# Values that must not be installed, and what the message has to name.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no brokers": ({"kafka": {}}, ["kafka.bootstrapServers is required", "kafka-1:9092"]),
    "brokers without a port": ({"kafka": {"bootstrapServers": "kafka"}}, ["bootstrapServers", "pattern"]),
    "no tables": ({"tables": []}, ["tables is required", "source: {topic: users"]),
    "a table twice": ({"tables": [_TABLE, _TABLE]}, ["tables: users is there twice"]),
    "a table without a source": ({"tables": [{"name": "users"}]}, ["tables", "source"]),
    "a key format that does not exist": (_table(key="strng"), ["tables", "key"]),
    "a field of a source that does not exist": (_table(partitoner="crc32"), ["tables", "partitoner"]),
    "a topic that cannot be": (_table(topic=".."), ["tables", "topic"]),
    "columns of something else than json": (
        {"tables": [{**_TABLE, "columns": ["a"], "source": {"topic": "users", "key": "string", "value": "bytes"}}]},
        ["tables", "value"],
    ),
    "an unknown value": ({"replicas": 3}, ["replicas"]),
    "an unknown value further down": ({"image": {"pullpolicy": "Always"}}, ["image", "pullpolicy"]),
    "a setting that does not exist": ({"settings": {"memory_buget": "1GiB"}}, ["settings", "memory_buget"]),
    "a setting that the chart decides": ({"settings": {"http_port": 80}}, ["settings", "http_port"]),
    "a setting that is no text": ({"settings": {"log_level": ["info"]}}, ["settings", "log_level"]),
    "a level of logging that does not exist": ({"settings": {"log_level": "trace"}}, ["settings", "log_level"]),
    "a size in a unit that the worker does not know": (
        {"settings": {"memory_budget": "900M"}},
        ["settings", "memory_budget"],
    ),
    "a size that is too small": ({"settings": {"memory_budget": 900}}, ["settings", "memory_budget"]),
    "a time that is none": ({"settings": {"session_timeout": "soon"}}, ["settings", "session_timeout"]),
    "records that are no number": ({"settings": {"acceptable_lag": "1k"}}, ["settings", "acceptable_lag"]),
    "a group that cannot be": ({"settings": {"group": "my group"}}, ["settings", "group"]),
    "a topic for dead letters that cannot be": (
        {"settings": {"dead_letter_topic": "dead letters"}},
        ["settings", "dead_letter_topic"],
    ),
    "no shutdown time": ({"settings": {"shutdown_timeout": None}}, ["settings", "shutdown_timeout"]),
    "a shutdown time that is no duration": ({"settings": {"shutdown_timeout": "25x"}}, ["shutdown_timeout"]),
    "a grace period that is too short": (
        {"terminationGracePeriodSeconds": 30},
        ["terminationGracePeriodSeconds is 30", "preStopSleepSeconds", "settings.shutdown_timeout", "which are 30 s"],
    ),
    "a shutdown time above the grace period": (
        {"settings": {"shutdown_timeout": "1 m"}},
        ["terminationGracePeriodSeconds is 45", "which are 65 s"],
    ),
    "a grace period that is too short for milliseconds": (
        {"settings": {"shutdown_timeout": "44500ms"}, "preStopSleepSeconds": 1},
        ["terminationGracePeriodSeconds is 45", "which are 45.5 s"],
    ),
    "one port for both listeners": (
        {"containerPorts": {"http": 8000, "internal": 8000}},
        ["containerPorts.http and containerPorts.internal must differ, both are 8000"],
    ),
    "one port for clients and probes": (
        {"containerPorts": {"http": 8000, "probe": 8000}},
        ["containerPorts.http and containerPorts.probe must differ, both are 8000"],
    ),
    "a port that does not exist": ({"service": {"port": 70000}}, ["service", "port"]),
    "autoscaling without partitions": ({"autoscaling": {"enabled": True}}, ["autoscaling.partitions is required"]),
    "autoscaling above the partitions": (
        {"autoscaling": {"enabled": True, "maxReplicas": 12, "partitions": 8}},
        ["autoscaling.maxReplicas is 12, above autoscaling.partitions, 8"],
    ),
    "more workers at least than at most": (
        {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4, "partitions": 8}},
        ["autoscaling.minReplicas is 5, above autoscaling.maxReplicas, 4"],
    ),
    "autoscaling without a request of CPU": (
        {**CASES["autoscaling"], "resources": {"requests": {"cpu": None}}},
        ["resources.requests.cpu is required with autoscaling"],
    ),
    "memory that does not hold the budget": (
        {"settings": {"memory_budget": "2GiB"}},
        ["resources.limits.memory is 1Gi", "settings.memory_budget, 2GiB"],
    ),
    "two ways into the schema registry": (
        _registry(existingSecret="registry", userKey="user", passwordKey="password", tokenKey="token"),
        ["schemaRegistry.tokenKey excludes schemaRegistry.userKey"],
    ),
    "a user of the schema registry without a password": (
        _registry(existingSecret="registry", userKey="user"),
        ["schemaRegistry.userKey and schemaRegistry.passwordKey belong together"],
    ),
    "a token for the schema registry from nowhere": (
        _registry(tokenKey="token"),
        ["schemaRegistry.existingSecret is required with schemaRegistry.userKey, passwordKey or tokenKey"],
    ),
    "a secret of the schema registry without keys": (
        _registry(existingSecret="registry"),
        ["schemaRegistry.existingSecret needs"],
    ),
    "memory in another notation that does not hold the budget": (
        {"resources": {"limits": {"memory": "5e8"}}},
        ["resources.limits.memory is 500000000"],
    ),
    "an ingress without hosts": ({"ingress": {"enabled": True}}, ["ingress.hosts is required"]),
    "a test of no table": (
        {"test": {"table": "planes", "key": "N14228"}},
        ["test.table is planes, which is not one of the tables (airlines)"],
    ),
    "a test of no key": ({"test": {"table": "airlines"}}, ["test.key is required"]),
    "a test of a key alone": ({"test": {"key": "UA"}}, ["test.table is required"]),
    "a login without a mechanism": (
        _kafka(securityProtocol="SASL_SSL"),
        ["kafka.sasl.mechanism is required with kafka.securityProtocol SASL_SSL"],
    ),
    "a mechanism without a login": (
        _kafka(sasl={"mechanism": "PLAIN", "existingSecret": "login"}),
        ["kafka.sasl.mechanism is PLAIN, which needs kafka.securityProtocol SASL_SSL", "it is PLAINTEXT"],
    ),
    "a mechanism without its secret": (
        _kafka(securityProtocol="SASL_SSL", sasl={"mechanism": "PLAIN"}),
        ["kafka.sasl.existingSecret is required with kafka.sasl.mechanism PLAIN"],
    ),
    "a secret without a mechanism": (
        _kafka(sasl={"existingSecret": "login"}),
        ["kafka.sasl.mechanism is required with kafka.sasl.existingSecret"],
    ),
    "tokens from nowhere": (
        _kafka(securityProtocol="SASL_SSL", sasl={"mechanism": "OAUTHBEARER", "existingSecret": "client"}),
        ["kafka.sasl.tokenUrl is required with kafka.sasl.mechanism OAUTHBEARER"],
    ),
    "a token endpoint for a password": (
        _kafka(
            securityProtocol="SASL_SSL",
            sasl={"mechanism": "PLAIN", "existingSecret": "login", "tokenUrl": "https://login.example.com"},
        ),
        ["kafka.sasl.tokenUrl and kafka.sasl.scope are for kafka.sasl.mechanism OAUTHBEARER"],
    ),
    "a mechanism that does not exist": (_kafka(sasl={"mechanism": "GSSAPI"}), ["kafka", "mechanism"]),
    "authorities without TLS": (
        _kafka(tls={"existingSecret": "tls"}),
        ["kafka.tls.existingSecret needs kafka.securityProtocol SSL or SASL_SSL; it is PLAINTEXT"],
    ),
    "a certificate from nowhere": (
        _kafka(securityProtocol="SSL", tls={"clientCertificate": True}),
        ["kafka.tls.existingSecret is required with kafka.tls.clientCertificate"],
    ),
    "a password for no key": (
        _kafka(securityProtocol="SSL", tls={"existingSecret": "tls", "keyPasswordKey": "password"}),
        ["kafka.tls.clientCertificate is required with kafka.tls.keyPasswordKey"],
    ),
    "a setting that has a value of the chart": (
        {"settings": {"kafka_sasl_password": "hunter2"}},
        ["settings", "kafka_sasl_password"],
    ),
    "a variable that the chart sets": (
        {"extraEnv": [{"name": "TABLEHOUSE_HTTP_PORT", "value": "80"}]},
        ["extraEnv: TABLEHOUSE_HTTP_PORT is set by the chart"],
    ),
    "a variable that a setting sets": (
        {"extraEnv": [{"name": "TABLEHOUSE_SHUTDOWN_TIMEOUT", "value": "1h"}]},
        ["extraEnv: TABLEHOUSE_SHUTDOWN_TIMEOUT is set by the chart"],
    ),
    "a digest that is none": ({"image": {"digest": "latest"}}, ["image", "digest"]),
    "a label that the chart sets": (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        ["commonLabels", "app.kubernetes.io"],
    ),
    "a zone that no node can have": ({"zone": "eu-1a-"}, ["zone", "pattern"]),
    "the label of the group": ({"podLabels": {"tablehouse-group": "x"}}, ["podLabels", "tablehouse-group"]),
    "a policy that does not exist": ({"podManagementPolicy": "Serial"}, ["podManagementPolicy"]),
    "a name that cannot be": ({"fullnameOverride": "Table_House"}, ["fullnameOverride"]),
    "security that the product does not have": ({"auth": {"existingSecret": "keys"}}, ["auth"]),
    "connections that the product does not have": (
        {"kafka": {"bootstrapServers": "kafka:9092", "sasl": {"existingSecret": "kafka"}}},
        ["kafka", "sasl"],
    ),
}


@pytest.mark.parametrize(("values", "said"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_message_that_says_what_and_why(
    values: dict[str, Any], said: list[str], helm: Helm, home: Path
) -> None:
    with pytest.raises(HelmError) as refusal:
        helm.template(values, home)
    message = str(refusal.value)
    for part in said:
        assert part in message


def test_every_problem_is_told_at_once(helm: Helm, home: Path) -> None:
    values = {"tables": [], "terminationGracePeriodSeconds": 10, "ingress": {"enabled": True}}
    with pytest.raises(HelmError) as refusal:
        helm.template(values, home)
    for part in ("tables is required", "terminationGracePeriodSeconds is 10", "ingress.hosts is required"):
        assert part in str(refusal.value)

import os
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from tablehouse.config.load import load_settings
from tablehouse.config.settings import SETTINGS, Settings
from tablehouse.errors import ConfigError

REQUIRED = {"bootstrap_servers": "kafka:9092", "tables": "tables.yaml"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TABLEHOUSE_"):
            monkeypatch.delenv(name)


def write_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("TABLEHOUSE_CONFIG", str(path))
    return path


def problems(flags: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags)
    return str(caught.value).splitlines()


def test_two_settings_are_enough_and_the_rest_have_defaults() -> None:
    settings = load_settings(REQUIRED)
    assert settings.bootstrap_servers == "kafka:9092"
    assert settings.tables == Path("tables.yaml")
    assert settings.group == "tablehouse"
    assert settings.data_dir == Path("data")
    assert settings.http_host == "0.0.0.0"  # noqa: S104
    assert (settings.http_port, settings.internal_port) == (8080, 9080)
    assert settings.advertised_url == f"http://{socket.gethostname()}:9080"
    assert settings.internal_secrets == ()
    assert settings.schema_registry == ()
    assert settings.schema_registry_password is None
    assert settings.schema_registry_token is None
    assert settings.schema_registry_ca is None
    assert settings.zone == ""
    assert settings.kafka_security_protocol == "PLAINTEXT"
    assert settings.memory_budget == 512 * 1024 * 1024
    assert settings.session_timeout == 10.0
    assert settings.max_staleness == 3600.0
    assert (settings.acceptable_lag, settings.takeover_interval) == (10_000, 60.0)
    assert settings.request_timeout == 5.0
    assert settings.shutdown_timeout == 25.0
    assert settings.dead_letter_topic == "tablehouse-dead-letters"
    assert (settings.log_format, settings.log_level) == ("json", "info")


@pytest.mark.parametrize(
    ("host", "url"),
    [("10.1.2.3", "http://10.1.2.3:7000"), ("fd00::1", "http://[fd00::1]:7000"), ("worker-1", "http://worker-1:7000")],
)
def test_peers_reach_a_worker_at_its_advertised_host_and_internal_port(host: str, url: str) -> None:
    assert load_settings(REQUIRED | {"advertised_host": host, "internal_port": "7000"}).advertised_url == url


def test_a_flag_outweighs_the_environment_and_that_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_file(monkeypatch, tmp_path, "group: file\nhttp_port: 1\ninternal_port: 2\n")
    monkeypatch.setenv("TABLEHOUSE_GROUP", "environment")
    monkeypatch.setenv("TABLEHOUSE_HTTP_PORT", "3")
    settings = load_settings(REQUIRED | {"group": "flag"})
    assert (settings.group, settings.http_port, settings.internal_port) == ("flag", 3, 2)


def test_every_setting_can_come_from_each_source(tmp_path: Path) -> None:
    given = {
        "bootstrap_servers": "a:1, [::1]:2",
        "tables": "/etc/tables.yaml",
        "group": "g.1",
        "dead_letter_topic": "letters",
        "replication_factor": "2",
        "data_dir": "/data",
        "http_host": "127.0.0.1",
        "http_port": "1234",
        "internal_port": "1235",
        "probe_port": "9191",
        "advertised_host": "worker-1",
        "advertised_url": "http://worker-1.workers.svc:1235",
        "internal_secrets": "correct-horse-battery, staple-correct-horse",
        "cors_origins": "https://App.example.com, http://localhost:3000",
        "schema_registry": "https://registry-1:8081/, http://[::1]/apis/ccompat/v7",
        "schema_registry_user": "tablehouse",
        "schema_registry_password": "correct horse",
        "schema_registry_ca": "/etc/ca.pem",
        "schema_registry_certificate": "/etc/worker.pem",
        "schema_registry_key": "/etc/worker.key",
        "schema_registry_unknown_after": "90s",
        "zone": "eu-west-1a",
        "memory_budget": "1.5GiB",
        "session_timeout": "1500ms",
        "max_staleness": "2d",
        "acceptable_lag": "500",
        "takeover_interval": "5s",
        "request_timeout": "0.25",
        "shutdown_timeout": "2m",
        "log_format": "console",
        "log_level": "debug",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "reader",
        "kafka_sasl_password": "correct horse",
        "kafka_ca": "/etc/ca.pem",
        "kafka_certificate": "/etc/tls.crt",
        "kafka_key": "/etc/tls.key",
        "kafka_key_password": "battery staple",
    }
    with_token = {name: value for name, value in given.items() if not name.startswith(("kafka_", "schema_"))} | {
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_oauth_token_url": "https://login.example.com/token",
        "kafka_oauth_client_id": "workers",
        "kafka_oauth_client_secret": "correct horse",
        "kafka_oauth_scope": "kafka",
        "schema_registry_token": "a.b.c",
    }
    # Of a password and a token there can be one.
    assert set(given) | set(with_token) == {setting.name for setting in SETTINGS}
    expected = load_settings(given)
    assert expected.bootstrap_servers == "a:1,[::1]:2"
    assert [secret.get_secret_value() for secret in expected.internal_secrets] == [
        "correct-horse-battery",
        "staple-correct-horse",
    ]
    assert expected.replication_factor == 2
    assert expected.cors_origins == ("https://app.example.com", "http://localhost:3000")
    assert expected.schema_registry == ("https://registry-1:8081", "http://[::1]/apis/ccompat/v7")
    assert expected.schema_registry_user == "tablehouse"
    assert expected.schema_registry_password is not None
    assert expected.schema_registry_password.get_secret_value() == "correct horse"
    assert expected.schema_registry_ca == Path("/etc/ca.pem")
    assert expected.schema_registry_certificate == Path("/etc/worker.pem")
    assert expected.schema_registry_key == Path("/etc/worker.key")
    assert expected.memory_budget == 1536 * 1024 * 1024
    assert (expected.session_timeout, expected.max_staleness) == (1.5, 172800.0)
    assert (expected.zone, expected.acceptable_lag, expected.takeover_interval) == ("eu-west-1a", 500, 5.0)
    assert (expected.request_timeout, expected.shutdown_timeout) == (0.25, 120.0)

    for spelled in (given, with_token):
        expected = load_settings(spelled)
        with pytest.MonkeyPatch.context() as here:
            write_file(here, tmp_path, "".join(f"{name}: '{value}'\n" for name, value in spelled.items()))
            assert load_settings({}) == expected
        with pytest.MonkeyPatch.context() as here:
            for setting in SETTINGS:
                if setting.name in spelled:
                    here.setenv(setting.variable, spelled[setting.name])
            assert load_settings({}) == expected


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(REQUIRED)
    with pytest.raises(ValidationError):
        settings.group = "other"  # type: ignore[misc]


def test_what_is_missing_is_named_with_every_way_to_give_it() -> None:
    assert problems({"tables": "tables.yaml"}) == [
        (
            "settings: bootstrap_servers is missing; set TABLEHOUSE_BOOTSTRAP_SERVERS, --bootstrap-servers "
            "or bootstrap_servers in the file that TABLEHOUSE_CONFIG names"
        )
    ]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("dead_letter_topic", "a b", "must be the name of a topic"),
        ("dead_letter_topic", "..", "must be the name of a topic"),
        ("bootstrap_servers", "kafka", "must be host:port"),
        ("bootstrap_servers", "kafka:0", "must be host:port"),
        ("bootstrap_servers", "a:1,,b:2", "must be host:port"),
        ("bootstrap_servers", "http://a:1", "must be host:port"),
        ("tables", "", "must be a path"),
        ("group", "a b", "must be up to 100 letters"),
        ("group", "g" * 101, "must be up to 100 letters"),
        ("group", "", "must be up to 100 letters"),
        ("data_dir", "", "must be a path"),
        ("http_host", "http://x", "must be an address or a host name"),
        ("http_port", "0", "must be a port from 1 to 65535"),
        ("http_port", "65536", "must be a port from 1 to 65535"),
        ("http_port", "1" * 5000, "must be a port from 1 to 65535"),
        ("internal_port", "x", "must be a port from 1 to 65535"),
        ("advertised_host", "worker:9080", "must be a host name or an IP address"),
        ("advertised_host", "[fd00::1]", "must be a host name or an IP address"),
        ("advertised_host", "", "must be a host name or an IP address"),
        ("advertised_url", "worker:9080", "must be http://host"),
        ("advertised_url", "https://worker:9080", "must be http://host"),
        ("advertised_url", "http://worker:9080/", "must be http://host"),
        ("advertised_url", "http://worker:9080?a", "must be http://host"),
        ("advertised_url", "http://me:secret@worker:9080", "must be http://host"),
        ("advertised_url", "http://worker:port", "must be http://host"),
        ("advertised_url", "http://[::1", "must be http://host"),
        ("zone", "eu west", "must be up to 100 letters"),
        ("replication_factor", "0", "must be a number of replicas, like 3"),
        ("memory_budget", "63MiB", "must be a size of at least 64MiB"),
        ("memory_budget", "512MB", "must be a size of at least 64MiB"),
        ("memory_budget", "-1", "must be a size of at least 64MiB"),
        ("session_timeout", "900ms", "must be a duration from 1s to 30m"),
        ("session_timeout", "10 seconds", "must be a duration from 1s to 30m"),
        ("session_timeout", "nan", "must be a duration from 1s to 30m"),
        ("max_staleness", "366d", "must be a duration from 0s to 365d"),
        ("acceptable_lag", "-1", "must be a number of records"),
        ("acceptable_lag", "10k", "must be a number of records"),
        ("request_timeout", "0", "must be a duration from 10ms to 10m"),
        ("shutdown_timeout", "2h", "must be a duration from 1s to 1h"),
        ("log_format", "xml", "must be 'json' or 'console'"),
        ("log_level", "INFO", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_origin_and_what_would_be_right(
    name: str, value: str, right: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    others = {key: text for key, text in REQUIRED.items() if key != name}

    [problem] = problems(others | {name: value})
    assert problem.startswith(f"flag: {setting.flag}: {right}")
    assert problem.endswith(f"; it is {value.replace('me:secret@', '***@')!r}")

    path = write_file(monkeypatch, tmp_path, f"# settings\n{name}: '{value}'\n")
    [problem] = problems(others)
    assert problem.startswith(f"{path}:2: {name}: {right}")

    monkeypatch.setenv(setting.variable, value)
    [problem] = problems(others)
    assert problem.startswith(f"environment: {setting.variable}: {right}")


def test_two_listeners_cannot_have_one_port() -> None:
    assert problems(REQUIRED | {"http_port": "9080"}) == [
        "settings: http_port and internal_port must differ, both are 9080"
    ]
    assert problems(REQUIRED | {"probe_port": "8080"}) == [
        "settings: http_port and probe_port must differ, both are 8080"
    ]


def test_a_bad_port_is_one_problem_though_the_advertised_url_is_made_from_it() -> None:
    assert problems(REQUIRED | {"internal_port": "x"}) == [
        "flag: --internal-port: must be a port from 1 to 65535; it is 'x'"
    ]


def test_an_unknown_variable_is_refused_with_the_closest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLEHOUSE_GRUOP", "x")
    assert problems(REQUIRED) == ["environment: TABLEHOUSE_GRUOP is not a setting; did you mean TABLEHOUSE_GROUP?"]


@pytest.mark.parametrize(
    "name",
    ["TABLEHOUSE_PORT", "TABLEHOUSE_SERVICE_HOST", "TABLEHOUSE_HEADLESS_PORT_9080_TCP_ADDR"],
)
def test_a_variable_that_kubernetes_sets_is_refused_with_the_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    assert problems(REQUIRED) == [
        (
            f"environment: {name} is not a setting; if Kubernetes set it for a service, start the pod with "
            "enableServiceLinks: false"
        )
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gruop: x\n", ":1: gruop is not a setting; did you mean group?"),
        ("group: x\ngroup: y\n", ":2: group is given twice, first on line 1; keep one"),
        ("group:\n", ":1: group: must be text or a number, this is nothing"),
        ("group: [x]\n", ":1: group: must be text or a number, this is a list"),
        ("- group\n", ":1: must be a mapping of settings, this is a list"),
        (
            "group: {\n",
            (
                ":2: is not YAML: expected the node content, but found '<stream end>'; something is missing here, or a "
                "bracket or brace is not closed (the file that TABLEHOUSE_CONFIG names)"
            ),
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_file(monkeypatch, tmp_path, text)
    [problem] = problems(REQUIRED)
    assert problem.startswith(f"{path}{expected}")


def test_a_file_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLEHOUSE_CONFIG", "/nowhere/config.yaml")
    assert problems(REQUIRED) == [
        ("/nowhere/config.yaml: cannot be read (No such file or directory) (the file that TABLEHOUSE_CONFIG names)")
    ]


def test_an_empty_file_sets_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_file(monkeypatch, tmp_path, "")
    assert load_settings(REQUIRED).group == "tablehouse"


def test_every_setting_describes_itself() -> None:
    assert all(setting.description.endswith(".") for setting in SETTINGS)
    assert [setting.name for setting in SETTINGS] == list(Settings.model_fields)


@pytest.mark.parametrize(
    "value", ["", ",", "fifteen-chars-x", "correct-horse-battery,short", "correct horse battery", "kürbiskernöl-kalt"]
)
def test_secrets_that_cannot_be_used_are_refused_and_never_repeated(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = "must be a secret of 16 to 200 printable ASCII characters"
    [by_flag] = problems(REQUIRED | {"internal_secrets": value})
    assert by_flag.startswith(f"flag: --internal-secrets: {right}")
    monkeypatch.setenv("TABLEHOUSE_INTERNAL_SECRETS", value)
    [by_variable] = problems(REQUIRED)
    assert by_variable.startswith(f"environment: TABLEHOUSE_INTERNAL_SECRETS: {right}")
    monkeypatch.delenv("TABLEHOUSE_INTERNAL_SECRETS")
    path = write_file(monkeypatch, tmp_path, f"internal_secrets: '{value}'\n")
    [by_file] = problems(REQUIRED)
    assert by_file.startswith(f"{path}:1: internal_secrets: {right}")
    for problem in (by_flag, by_variable, by_file):
        assert problem.endswith("it is not shown here")
        assert len(value) < 2 or value not in problem


def test_secrets_do_not_show_in_what_is_printed_of_the_settings() -> None:
    settings = load_settings(REQUIRED | {"internal_secrets": "correct-horse-battery,staple-correct-horse"})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "horse" not in shown
    assert "internal_secrets" in shown


def test_a_secret_with_a_line_break_at_its_end_as_files_have_it_is_the_secret() -> None:
    settings = load_settings(REQUIRED | {"internal_secrets": "correct-horse-battery\n"})
    assert [secret.get_secret_value() for secret in settings.internal_secrets] == ["correct-horse-battery"]


def test_origins_are_exact_ones_or_a_star() -> None:
    assert load_settings(REQUIRED).cors_origins == ()
    for value in ("*", "http://[::1]:3000", "capacitor://localhost", "https://a.example:8443"):
        assert load_settings(REQUIRED | {"cors_origins": value}).cors_origins == (value,)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "*, https://a.example",
        "https://*.example.com",
        "a.example",
        "null",
        "https://a.example/",
        "https://a:0",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(value: str) -> None:
    [problem] = problems(REQUIRED | {"cors_origins": value})
    assert problem.startswith("flag: --cors-origins: must be origins like https://app.example.com")


@pytest.mark.parametrize("value", ["https://a.example:443", "http://a.example:80"])
def test_an_origin_with_the_usual_port_would_match_nothing_and_is_refused(value: str) -> None:
    [problem] = problems(REQUIRED | {"cors_origins": value})
    assert f"{value} without its port" in problem


REGISTRY = REQUIRED | {"schema_registry": "https://registry:8081"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "registry:8081",
        "ftp://registry",
        "http://",
        "http://user:horse@registry",
        "http://registry/?a=horse",
        "http://r:0",
    ],
)
def test_urls_of_a_schema_registry_that_cannot_be_used_are_refused_and_not_repeated(value: str) -> None:
    [problem] = problems(REQUIRED | {"schema_registry": value})
    assert problem.startswith("flag: --schema-registry: must be http://host:port or https://host, with the path")
    assert "horse" not in problem


@pytest.mark.parametrize("name", ["schema_registry_password", "schema_registry_token"])
def test_a_schema_registry_s_secrets_are_not_shown(name: str) -> None:
    [problem] = problems(REGISTRY | {name: "h\u00f6rse"})
    assert (
        problem
        == f"flag: --{name.replace('_', '-')}: must be at most 8192 printable ASCII characters; it is not shown here"
    )
    user = {"schema_registry_user": "u"} if name.endswith("password") else {}
    settings = load_settings(REGISTRY | user | {name: "correct-horse\n"})
    assert getattr(settings, name).get_secret_value() == "correct-horse"
    assert "horse" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"schema_registry_user": "u"}, "settings: schema_registry_user and schema_registry_password belong together"),
        (
            {"schema_registry_password": "p"},
            "settings: schema_registry_user and schema_registry_password belong together",
        ),
        (
            {"schema_registry_user": "u", "schema_registry_password": "p", "schema_registry_token": "t"},
            "settings: schema_registry_token and schema_registry_user exclude each other",
        ),
        ({"schema_registry_key": "k.pem"}, "settings: schema_registry_certificate is missing"),
    ],
)
def test_what_a_schema_registry_is_shown_has_to_agree(given: dict[str, str], right: str) -> None:
    [problem] = problems(REGISTRY | given)
    assert problem.startswith(right)


def test_a_user_s_name_has_no_colon() -> None:
    [problem] = problems(REGISTRY | {"schema_registry_user": "a:b", "schema_registry_password": "p"})
    assert problem.startswith(
        "flag: --schema-registry-user: must be up to 255 printable ASCII characters without a colon"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("advertised_url", "http://me:secret/with@every:thing@worker:9080"),
        ("kafka_oauth_token_url", "https://me:secret@login.example.com/token"),
        ("bootstrap_servers", "me:secret@kafka:9092"),
        ("schema_registry", "http://me:secret@registry:8081"),
        ("group", "me:secret@group"),
    ],
)
def test_a_value_that_is_refused_is_shown_without_user_and_password(name: str, value: str) -> None:
    [problem] = [line for line in problems(REQUIRED | {name: value}) if name.replace("_", "-") in line]
    assert "secret" not in problem
    assert "every:thing" not in problem


def test_every_setting_that_is_a_secret_by_its_type_is_masked() -> None:
    for name in ("internal_secrets", "kafka_sasl_password", "kafka_oauth_client_secret", "kafka_key_password"):
        [problem] = [line for line in problems(REQUIRED | {name: "hunter2\x00"}) if name.replace("_", "-") in line]
        assert "hunter2" not in problem
        assert problem.endswith("it is not shown here")

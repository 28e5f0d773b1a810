"""Settings: one frozen object from a file, the environment and flags, in that order of rising weight.

A setting is spelled `group` in the file, TABLEHOUSE_GROUP in the environment and --group as a flag, and its value is
written the same way in all three.
"""

import difflib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tablehouse.config import setting_values as values
from tablehouse.config.kafka_access import contradictions
from tablehouse.config.marked_yaml import YamlError, entries_of, kind_of, line_of, read_yaml
from tablehouse.errors import ConfigError
from tablehouse.masking import without_user_info

PREFIX = "TABLEHOUSE_"
#: The environment variable that names the file of settings; there need not be one.
CONFIG_VARIABLE = "TABLEHOUSE_CONFIG"

# What Kubernetes puts into the pods of a namespace that has a service called tablehouse or tablehouse-<x>.
_SERVICE_LINK = re.compile(r"TABLEHOUSE_(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")


def _default_url(settings: Mapping[str, Any]) -> str:
    # A host or port that could not be used is missing here, and is reported on its own.
    host = settings.get("advertised_host", "")
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.get('internal_port', '')}"


def _default_dead_letters(settings: Mapping[str, Any]) -> str:
    return f"{settings.get('group', '')}-dead-letters"


#: What is shown as the default of settings that need not be given and have none.
_NONE: dict[str, Any] = {"default": "none"}


class Settings(BaseSettings):
    """How one worker runs; `load_settings` is the way to get one from what the user gave.

    Durations are in seconds and sizes in bytes. Relative paths start at the working directory, in the file too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bootstrap_servers: Annotated[str, BeforeValidator(values.servers)] = Field(
        description="Kafka brokers for the first connection, and again if no known broker answers; host:port, "
        "separated by commas.",
    )
    tables: Annotated[Path, BeforeValidator(values.path)] = Field(
        description="The file that defines the tables.",
    )
    group: Annotated[str, BeforeValidator(values.group, json_schema_input_type=values.Group)] = Field(
        default="tablehouse",
        description="The consumer group, and the prefix of its changelog topics. The workers of a group share the "
        "tables.",
    )
    dead_letter_topic: Annotated[str, BeforeValidator(values.topic, json_schema_input_type=values.Topic)] = Field(
        default_factory=_default_dead_letters,
        json_schema_extra={"default": "<group>-dead-letters"},
        description="The topic for records that cannot become rows, of tables whose on_error is dead_letter. It is "
        "created if it is missing.",
    )
    replication_factor: (
        Annotated[int, BeforeValidator(values.replicas, json_schema_input_type=values.Replicas)] | None
    ) = Field(
        default=None,
        json_schema_extra={"default": "that of the cluster"},
        description="Number of replicas of the topics that a worker creates. By default the highest of: the replicas "
        "of their source, the brokers' default.replication.factor, and the number of brokers up to 3.",
    )
    data_dir: Annotated[Path, BeforeValidator(values.path)] = Field(
        default="./data",
        validate_default=True,
        description="The directory of this worker's stores and identity. Each worker needs its own.",
    )
    http_host: Annotated[str, BeforeValidator(values.host)] = Field(
        # Peers have to reach the internal listener for the group to answer at all.
        default="0.0.0.0",  # noqa: S104
        description="The address that both listeners bind to; 127.0.0.1 excludes other machines, including other "
        "workers.",
    )
    http_port: Annotated[int, BeforeValidator(values.port)] = Field(
        default=8080,
        description="The port of the public listener.",
    )
    internal_port: Annotated[int, BeforeValidator(values.port)] = Field(
        default=9080,
        description="The port of the internal listener, for other workers only.",
    )
    probe_port: Annotated[int | None, BeforeValidator(values.port)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The port of a separate listener that only serves /livez, /readyz and /metrics, so that probes do "
        "not need access to the public listener, which also serves them.",
    )
    advertised_host: Annotated[str, BeforeValidator(values.advertised_host)] = Field(
        default_factory=socket.gethostname,
        json_schema_extra={"default": "the machine's host name"},
        description="The host name or IP address at which other workers reach this one.",
    )
    advertised_url: Annotated[str, BeforeValidator(values.url)] = Field(
        default_factory=_default_url,
        json_schema_extra={"default": "http://<advertised host>:<internal port>"},
        description="The URL at which other workers reach this one's internal listener, if it is not its port at the "
        "advertised host.",
    )
    internal_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(values.secrets)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="Shared secrets of the workers, separated by commas. Two workers accept each other's requests if "
        "they have one in common; secrets are never sent. Without any, the internal listener answers all requests.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.origins)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="Origins whose pages may read and write tables from browsers, like https://app.example.com, "
        "separated by commas; or * for all.",
    )
    schema_registry: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.registry_urls)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The base URL of the schema registry, the part before /subjects; or several URLs of one registry, "
        "separated by commas, of which the next is tried if one does not answer.",
    )
    schema_registry_user: Annotated[str | None, BeforeValidator(values.user)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The user name for the schema registry, used with the password.",
    )
    schema_registry_password: Annotated[SecretStr | None, BeforeValidator(values.header_secret)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The password for the schema registry, used with the user name.",
    )
    schema_registry_token: Annotated[SecretStr | None, BeforeValidator(values.header_secret)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The bearer token for the schema registry, instead of user name and password.",
    )
    schema_registry_ca: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file of the certificate authorities trusted for the schema registry; by default those of "
        "the system.",
    )
    schema_registry_certificate: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file with this worker's client certificate for the schema registry, and its key unless "
        "that is in a separate file.",
    )
    schema_registry_key: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file with the unencrypted private key of the client certificate for the schema registry.",
    )
    schema_registry_unknown_after: Annotated[float, values.duration(0, 3600, "from 0s to 1h")] = Field(
        default="30s",
        validate_default=True,
        description="A schema counts as missing only after the schema registry has said so for this long; until then, "
        "the partition of the record that needs it waits. Set this above the replication delay between registries.",
    )
    zone: Annotated[str, BeforeValidator(values.zone)] = Field(
        default="",
        description="The zone of this worker, like eu-west-1a. Standbys are placed in other zones than their owners "
        "if possible.",
    )
    memory_budget: Annotated[int, BeforeValidator(values.memory, json_schema_input_type=values.Size)] = Field(
        default="512MiB",
        validate_default=True,
        description="Memory for stores, fetched data and waiting records, in addition to Python itself; at least "
        "64MiB. A worker with many partitions needs more, and reports how much at its start: 0.22MiB for each "
        "partition of a topic and 0.13MiB for each of a table, beyond the first 64MiB of that.",
    )
    session_timeout: Annotated[float, values.duration(1, 1800, "from 1s to 30m")] = Field(
        default="10s",
        validate_default=True,
        description="Time without a heartbeat after which the group revokes a worker's partitions. The broker limits "
        "its range (group.min.session.timeout.ms).",
    )
    max_staleness: Annotated[float, values.duration(0, 31_536_000, "from 0s to 365d")] = Field(
        default="1h",
        validate_default=True,
        description="Maximum staleness of answers not given by the active, unless the caller sets a limit: a "
        "standby's staleness, or the time since a suspended worker's last successful heartbeat.",
    )
    acceptable_lag: Annotated[int, BeforeValidator(values.records, json_schema_input_type=values.Records)] = Field(
        default=10_000,
        description="A worker that is more than this many records behind on a partition restores it as a standby "
        "before it owns it. Set this to at least a few seconds' worth of records, since the owner continues while the "
        "group rebalances.",
    )
    takeover_interval: Annotated[float, values.duration(1, 86_400, "from 1s to 1d")] = Field(
        default="1m",
        validate_default=True,
        description="Minimum time between rebalances requested by a warmed-up worker.",
    )
    request_timeout: Annotated[float, values.duration(0.01, 600, "from 10ms to 10m")] = Field(
        default="5s",
        validate_default=True,
        description="Time limit of a read, including its hops to other workers.",
    )
    shutdown_timeout: Annotated[float, values.duration(1, 3600, "from 1s to 1h")] = Field(
        default="25s",
        validate_default=True,
        description="Time after which a worker that was told to stop ends, even if it hangs.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="Security protocol of broker connections: SSL is TLS, SASL_PLAINTEXT is a login, SASL_SSL is both.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="Login mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.",
    )
    kafka_sasl_username: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The user name, for PLAIN and SCRAM.",
    )
    kafka_sasl_password: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password, for PLAIN and SCRAM.",
    )
    kafka_oauth_token_url: Annotated[str, BeforeValidator(values.token_url)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The token endpoint of the identity provider, for OAUTHBEARER.",
    )
    kafka_oauth_client_id: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The client id for token requests, for OAUTHBEARER.",
    )
    kafka_oauth_client_secret: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The client secret, for OAUTHBEARER.",
    )
    kafka_oauth_scope: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The scope of requested tokens, for OAUTHBEARER, if the provider requires one.",
    )
    kafka_ca: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra={"default": "those of the system"},
        description="A PEM file of the certificate authorities trusted for brokers. Host names are always checked.",
    )
    kafka_certificate: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of this worker's client certificate for brokers (mTLS), followed by its chain.",
    )
    kafka_key: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the private key of that certificate.",
    )
    kafka_key_password: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password of that key, if it is encrypted.",
    )
    log_format: Literal["json", "console"] = Field(
        default="json",
        description="Format of log lines: json, or console for reading.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The lowest level to log: debug, info, warning or error. Lines of libraries are logged from info "
        "on.",
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"http_port": self.http_port, "internal_port": self.internal_port, "probe_port": self.probe_port}
        for (one, port), (other, same) in combinations(ports.items(), 2):
            if port == same:
                raise ValueError(f"{one} and {other} must differ, both are {port}")
        return self

    @model_validator(mode="after")
    def _ways_to_kafka_fit(self) -> Self:
        if problems := list(contradictions(dict(self))):
            raise ValueError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _registry_agrees(self) -> Self:
        user, password = self.schema_registry_user is not None, self.schema_registry_password is not None
        if user != password:
            raise ValueError("schema_registry_user and schema_registry_password belong together, and one is missing")
        if user and self.schema_registry_token is not None:
            raise ValueError("schema_registry_token and schema_registry_user exclude each other; give one of them")
        if self.schema_registry_key is not None and self.schema_registry_certificate is None:
            raise ValueError("schema_registry_certificate is missing, which schema_registry_key belongs to")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let flags win over the environment, and that over the file. Raises ConfigError for a bad file."""
        in_file = {name: text for name, (_, text) in _read_file().items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people see it; `default` is None for those that have to be given."""

    name: str
    default: str | None
    description: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return f"--{self.name.replace('_', '-')}"


def _describe() -> tuple[Setting, ...]:
    described = []
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = extra.get("default", None if field.is_required() else field.default)
        described.append(Setting(name, None if default is None else str(default), field.description or ""))
    return tuple(described)


def _has_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_has_secret(part) for part in get_args(annotation))


#: Settings whose values no message repeats. People put a password into the URL of a registry.
_MASKED = {name for name, field in Settings.model_fields.items() if _has_secret(field.annotation)} | {"schema_registry"}

#: Every setting, in the order in which help and documentation show them.
SETTINGS = _describe()


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings of this process; `flags` holds those that were given, by the settings' names.

    Raises ConfigError with every problem on a line of its own, each naming the setting and where it came from.
    """
    problems = [_unknown_variable(name) for name in sorted(os.environ) if _is_unknown(name)]
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        # A default made from other settings cannot be made when one of those is bad, which is reported anyway.
        problems += [
            _explain(detail, flags) for detail in error.errors() if detail["type"] != "default_factory_not_called"
        ]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _is_unknown(variable: str) -> bool:
    known = {CONFIG_VARIABLE, *(setting.variable for setting in SETTINGS)}
    return variable.startswith(PREFIX) and variable not in known


def _unknown_variable(variable: str) -> str:
    if _SERVICE_LINK.fullmatch(variable):
        hint = "if Kubernetes set it for a service, start the pod with enableServiceLinks: false"
    else:
        hint = _suggestion(variable, [CONFIG_VARIABLE, *(setting.variable for setting in SETTINGS)])
    return f"environment: {variable} is not a setting; {hint}"


def _explain(detail: ErrorDetails, flags: Mapping[str, Any]) -> str:
    reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    if not detail["loc"]:
        return "\n".join(f"settings: {line}" for line in reason.splitlines())
    setting = next(setting for setting in SETTINGS if setting.name == detail["loc"][0])
    if detail["type"] == "missing":
        return (
            f"settings: {setting.name} is missing; set {setting.variable}, {setting.flag} "
            f"or {setting.name} in the file that {CONFIG_VARIABLE} names"
        )
    if detail["type"] == "literal_error":
        reason = f"must be {detail['ctx']['expected']}"
    shown = "it is not shown here" if setting.name in _MASKED else f"it is {without_user_info(str(detail['input']))!r}"
    return f"{_origin(setting, flags)}: {reason}; {shown}"


def _origin(setting: Setting, flags: Mapping[str, Any]) -> str:
    if setting.name in flags:
        return f"flag: {setting.flag}"
    if setting.variable in os.environ:
        return f"environment: {setting.variable}"
    file = _read_file()
    if setting.name in file:
        return f"{os.environ[CONFIG_VARIABLE]}:{file[setting.name][0]}: {setting.name}"
    return f"default: {setting.name}"


def _read_file() -> dict[str, tuple[int, str]]:
    """Return line and text of each setting in the file; the text is what the environment would hold."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path is None:
        return {}
    try:
        root = read_yaml(Path(path))
    except YamlError as error:
        place = path if error.line is None else f"{path}:{error.line}"
        raise ConfigError(f"{place}: {error} (the file that {CONFIG_VARIABLE} names)") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:{line_of(root)}: must be a mapping of settings, this is {kind_of(root)}")
    problems = []
    found: dict[str, tuple[int, str]] = {}
    names = [setting.name for setting in SETTINGS]
    for entry in entries_of(root):
        place = f"{path}:{entry.line}: {entry.key}"
        if entry.key not in names:
            problems.append(f"{place} is not a setting; {_suggestion(entry.key, names)}")
        elif entry.key in found:
            problems.append(f"{place} is given twice, first on line {found[entry.key][0]}; keep one")
        elif not isinstance(entry.node, yaml.ScalarNode) or entry.node.tag == "tag:yaml.org,2002:null":
            problems.append(f"{place}: must be text or a number, this is {kind_of(entry.node)}")
        else:
            found[entry.key] = (entry.line, entry.node.value)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"

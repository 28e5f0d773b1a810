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
        description="Kafka brokers to ask first, and again when none of the known ones answers; host:port with commas "
        "between.",
    )
    tables: Annotated[Path, BeforeValidator(values.path)] = Field(
        description="The file that defines the tables.",
    )
    group: Annotated[str, BeforeValidator(values.group, json_schema_input_type=values.Group)] = Field(
        default="tablehouse",
        description="Workers of one group share the tables between them: the consumer group, and the first part "
        "of the names of its changelog topics.",
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
        description="How many replicas the topics have that a worker creates. By default as many as their source, the "
        "brokers' default.replication.factor, or the number of brokers up to 3, whichever is most.",
    )
    data_dir: Annotated[Path, BeforeValidator(values.path)] = Field(
        default="./data",
        validate_default=True,
        description="Where this worker keeps its stores and its identity. One worker to a directory.",
    )
    http_host: Annotated[str, BeforeValidator(values.host)] = Field(
        # Peers have to reach the internal listener for the group to answer at all.
        default="0.0.0.0",  # noqa: S104
        description="The address both listeners bind; 127.0.0.1 shuts out other machines, peers included.",
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
        description="The port of a listener for /livez, /readyz and /metrics alone, so that these need not go where "
        "clients go. The public listener answers them too.",
    )
    advertised_host: Annotated[str, BeforeValidator(values.advertised_host)] = Field(
        default_factory=socket.gethostname,
        json_schema_extra={"default": "the machine's host name"},
        description="The host name or IP address at which other workers reach this one.",
    )
    advertised_url: Annotated[str, BeforeValidator(values.url)] = Field(
        default_factory=_default_url,
        json_schema_extra={"default": "http://<advertised host>:<internal port>"},
        description="The URL at which other workers reach the internal listener of this one, where it is another than "
        "its port at the advertised host.",
    )
    internal_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(values.secrets)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="Secrets of the workers, with commas between. Two workers answer each other when they have one in "
        "common, and none is ever sent. Without any, the internal listener answers every request that reaches it.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.origins)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="Origins whose pages browsers let read and write tables, like https://app.example.com, with commas "
        "between; or * for every page there is.",
    )
    schema_registry: Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.registry_urls)] = Field(
        default=(),
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The schema registry, a URL below which /subjects is; or several of one registry with commas "
        "between, of which the next is asked when one does not answer.",
    )
    schema_registry_user: Annotated[str | None, BeforeValidator(values.user)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The user's name that the schema registry is shown, with the password.",
    )
    schema_registry_password: Annotated[SecretStr | None, BeforeValidator(values.header_secret)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The password that the schema registry is shown, with the user's name.",
    )
    schema_registry_token: Annotated[SecretStr | None, BeforeValidator(values.header_secret)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="The bearer token that the schema registry is shown instead of user and password.",
    )
    schema_registry_ca: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file of the authorities that the certificate of the schema registry may come from; without "
        "it, those that the system trusts.",
    )
    schema_registry_certificate: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file with the certificate that this worker shows the schema registry; its key too, unless "
        "that has a file of its own.",
    )
    schema_registry_key: Annotated[Path | None, BeforeValidator(values.path)] = Field(
        default=None,
        validate_default=False,
        json_schema_extra={"default": "none"},
        description="A PEM file with the key, not encrypted, of the certificate that the schema registry is shown.",
    )
    schema_registry_unknown_after: Annotated[float, values.duration(0, 3600, "from 0s to 1h")] = Field(
        default="30s",
        validate_default=True,
        description="A schema is not there only after the schema registry has said so for this long; the partition of "
        "the record that needs it waits meanwhile. Set it above the time in which a registry hears of schemas that "
        "were registered at another one.",
    )
    zone: Annotated[str, BeforeValidator(values.zone)] = Field(
        default="",
        description="Where this worker runs, like eu-west-1a. Standbys are kept in other zones than their owners where "
        "there are any.",
    )
    memory_budget: Annotated[int, BeforeValidator(values.memory, json_schema_input_type=values.Size)] = Field(
        default="512MiB",
        validate_default=True,
        description="Memory for stores, what is fetched ahead and what waits, in addition to Python itself; at least "
        "64MiB. A worker with many partitions needs more, and says how much when it starts: 0.22MiB for each partition "
        "of a topic and 0.13MiB for each of a table, beyond the first 64MiB of that.",
    )
    session_timeout: Annotated[float, values.duration(1, 1800, "from 1s to 30m")] = Field(
        default="10s",
        validate_default=True,
        description="After this long without a heartbeat the group takes a worker's partitions away. The "
        "broker has bounds of its own for it (group.min.session.timeout.ms).",
    )
    max_staleness: Annotated[float, values.duration(0, 31_536_000, "from 0s to 365d")] = Field(
        default="1h",
        validate_default=True,
        description="How old the answer of a copy that is not the active may be when the caller gives no bound: a "
        "standby's staleness, or the time since a suspended worker's last good heartbeat.",
    )
    acceptable_lag: Annotated[int, BeforeValidator(values.records, json_schema_input_type=values.Records)] = Field(
        default=10_000,
        description="A worker that lacks more records of a partition restores it as a standby before it owns it. Let "
        "it be what a partition gets in some seconds at least: its owner goes on while the group rebalances.",
    )
    takeover_interval: Annotated[float, values.duration(1, 86_400, "from 1s to 1d")] = Field(
        default="1m",
        validate_default=True,
        description="A worker that has restored what it is to take over asks for a rebalance not sooner than this long "
        "after the one before.",
    )
    request_timeout: Annotated[float, values.duration(0.01, 600, "from 10ms to 10m")] = Field(
        default="5s",
        validate_default=True,
        description="How long one read may take, its hops to other workers included.",
    )
    shutdown_timeout: Annotated[float, values.duration(1, 3600, "from 1s to 1h")] = Field(
        default="25s",
        validate_default=True,
        description="A worker that was told to stop has ended after this long, whatever hangs.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How the brokers are spoken to: SSL is TLS, SASL_ is a login, and SASL_SSL is both.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="How this worker logs in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.",
    )
    kafka_sasl_username: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="Who logs in, with PLAIN and SCRAM.",
    )
    kafka_sasl_password: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password, with PLAIN and SCRAM.",
    )
    kafka_oauth_token_url: Annotated[str, BeforeValidator(values.token_url)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="Where tokens come from with OAUTHBEARER: the token endpoint of the identity provider.",
    )
    kafka_oauth_client_id: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="Who asks for tokens, with OAUTHBEARER.",
    )
    kafka_oauth_client_secret: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The secret of the client, with OAUTHBEARER.",
    )
    kafka_oauth_scope: Annotated[str, BeforeValidator(values.text)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The scope that tokens are asked for, with OAUTHBEARER, where the provider wants one.",
    )
    kafka_ca: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra={"default": "those of the system"},
        description="A PEM file of the authorities that the brokers' certificates are trusted from. Host names are "
        "always checked.",
    )
    kafka_certificate: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the certificate that this worker shows to brokers (mTLS), its chain after it.",
    )
    kafka_key: Annotated[Path, BeforeValidator(values.path)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the private key of that certificate.",
    )
    kafka_key_password: Annotated[SecretStr, BeforeValidator(values.secret)] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password of that key, when it is encrypted.",
    )
    log_format: Literal["json", "console"] = Field(
        default="json",
        description="How log lines are written: json, or console for people.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least severe lines to log: debug, info, warning or error. Those of libraries begin at info.",
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

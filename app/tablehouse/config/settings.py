"""Settings: one frozen object from a file, the environment and flags; later ones take precedence.

A setting is spelled `group` in the file, TABLEHOUSE_GROUP in the environment and --group as a flag, and its value is
written the same way in all three.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from tablehouse.config import kafka_access, registry_access
from tablehouse.config.kafka_access import KafkaAccess
from tablehouse.config.registry_access import RegistryAccess
from tablehouse.config.setting_types import (
    AdvertisedHost,
    Group,
    HeaderSecret,
    Host,
    ListenerUrl,
    Origins,
    Path,
    Port,
    Records,
    RegistryUrls,
    Replicas,
    Secret,
    Secrets,
    Servers,
    Size,
    Text,
    TokenUrl,
    Topic,
    UserName,
    Zone,
    is_unshown,
)
from tablehouse.config.setting_values import duration
from tablehouse.config.settings_file import read_settings_file

PREFIX = "TABLEHOUSE_"


def _default_url(settings: Mapping[str, Any]) -> str:
    # An invalid host or port is missing here, and is reported itself.
    host = settings.get("advertised_host", "")
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.get('internal_port', '')}"


def _default_dead_letters(settings: Mapping[str, Any]) -> str:
    return f"{settings.get('group', '')}-dead-letters"


#: The default shown for optional settings without one.
_NONE: dict[str, Any] = {"default": "none"}


class Settings(BaseSettings):
    """The settings of one worker; load_settings() creates them.

    Durations are in seconds and sizes in bytes. Relative paths start at the working directory, also in the file.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bootstrap_servers: Servers = Field(
        description="Kafka brokers for the first connection, and again if no known broker answers; host:port, "
        "separated by commas.",
    )
    tables: Path = Field(
        description="The file that defines the tables.",
    )
    group: Group = Field(
        default="tablehouse",
        description="The consumer group, and the prefix of its changelog topics. The workers of a group share the "
        "tables.",
    )
    dead_letter_topic: Topic = Field(
        default_factory=_default_dead_letters,
        json_schema_extra={"default": "<group>-dead-letters"},
        description="The topic for records that cannot become rows, of tables whose on_error is dead_letter. It is "
        "created if it is missing.",
    )
    replication_factor: Replicas | None = Field(
        default=None,
        json_schema_extra={"default": "that of the cluster"},
        description="Number of replicas of the topics that a worker creates. By default the highest of: the replicas "
        "of their source, the brokers' default.replication.factor, and the number of brokers up to 3.",
    )
    data_dir: Path = Field(
        default="./data",
        validate_default=True,
        description="The directory of this worker's stores and identity. Each worker needs its own.",
    )
    http_host: Host = Field(
        # Peers must be able to reach the internal listener, or the group cannot answer.
        default="0.0.0.0",  # noqa: S104
        description="The address that both listeners bind to; 127.0.0.1 excludes other machines, including other "
        "workers.",
    )
    http_port: Port = Field(
        default=8080,
        description="The port of the public listener.",
    )
    internal_port: Port = Field(
        default=9080,
        description="The port of the internal listener, for other workers only.",
    )
    probe_port: Port | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The port of a separate listener that only serves /livez, /readyz and /metrics, so that probes do "
        "not need access to the public listener, which also serves them.",
    )
    advertised_host: AdvertisedHost = Field(
        default_factory=socket.gethostname,
        json_schema_extra={"default": "the machine's host name"},
        description="The host name or IP address at which other workers reach this one.",
    )
    advertised_url: ListenerUrl = Field(
        default_factory=_default_url,
        json_schema_extra={"default": "http://<advertised host>:<internal port>"},
        description="The URL at which other workers reach this one's internal listener, if it is not its port at the "
        "advertised host.",
    )
    internal_secrets: Secrets = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="Shared secrets of the workers, separated by commas. Two workers accept each other's requests if "
        "they have one in common; secrets are never sent. Without any, the internal listener answers all requests.",
    )
    cors_origins: Origins = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="Origins whose pages may read and write tables from browsers, like https://app.example.com, "
        "separated by commas; or * for all.",
    )
    schema_registry: RegistryUrls = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="The base URL of the schema registry, the part before /subjects; or several URLs of one registry, "
        "separated by commas; if one does not answer, the next one is tried.",
    )
    schema_registry_user: UserName | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The user name for the schema registry, used with the password.",
    )
    schema_registry_password: HeaderSecret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password for the schema registry, used with the user name.",
    )
    schema_registry_token: HeaderSecret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The bearer token for the schema registry, instead of user name and password.",
    )
    schema_registry_ca: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the certificate authorities trusted for the schema registry; by default those of "
        "the system.",
    )
    schema_registry_certificate: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file with this worker's client certificate for the schema registry, and its key unless "
        "that is in a separate file.",
    )
    schema_registry_key: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file with the unencrypted private key of the client certificate for the schema registry.",
    )
    schema_registry_unknown_after: Annotated[float, duration(0, 3600, "from 0s to 1h")] = Field(
        default="30s",
        validate_default=True,
        description="A schema counts as missing only after the schema registry has not known it for this long; until "
        "then, the partition of the record that needs it waits. Set this above the replication delay between "
        "registries.",
    )
    zone: Zone = Field(
        default="",
        description="The zone of this worker, like eu-west-1a. Standbys are placed in other zones than their owners "
        "if possible.",
    )
    memory_budget: Size = Field(
        default="512MiB",
        validate_default=True,
        description="Memory for stores, fetched data and waiting records, in addition to Python itself; at least "
        "64MiB. A worker with many partitions needs more, and reports how much at its start: 0.22MiB for each "
        "partition of a topic and 0.13MiB for each of a table, beyond the first 64MiB of that.",
    )
    session_timeout: Annotated[float, duration(1, 1800, "from 1s to 30m")] = Field(
        default="10s",
        validate_default=True,
        description="Time without a heartbeat after which the group revokes a worker's partitions. The broker limits "
        "its range (group.min.session.timeout.ms).",
    )
    max_staleness: Annotated[float, duration(0, 31_536_000, "from 0s to 365d")] = Field(
        default="1h",
        validate_default=True,
        description="Maximum staleness of answers not given by the active, unless the caller sets a limit: a "
        "standby's staleness, or the time since a suspended worker's last successful heartbeat.",
    )
    acceptable_lag: Records = Field(
        default=10_000,
        description="A worker that is more than this many records behind on a partition restores it as a standby "
        "before it owns it. Set this to at least a few seconds' worth of records, since the owner continues while the "
        "group rebalances.",
    )
    takeover_interval: Annotated[float, duration(1, 86_400, "from 1s to 1d")] = Field(
        default="1m",
        validate_default=True,
        description="Minimum time between rebalances requested by a warmed-up worker.",
    )
    request_timeout: Annotated[float, duration(0.01, 600, "from 10ms to 10m")] = Field(
        default="5s",
        validate_default=True,
        description="Time limit of a read, including its hops to other workers.",
    )
    shutdown_timeout: Annotated[float, duration(1, 3600, "from 1s to 1h")] = Field(
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
    kafka_sasl_username: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The user name, for PLAIN and SCRAM.",
    )
    kafka_sasl_password: Secret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password, for PLAIN and SCRAM.",
    )
    kafka_oauth_token_url: TokenUrl | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The token endpoint of the identity provider, for OAUTHBEARER.",
    )
    kafka_oauth_client_id: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The client id for token requests, for OAUTHBEARER.",
    )
    kafka_oauth_client_secret: Secret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The client secret, for OAUTHBEARER.",
    )
    kafka_oauth_scope: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The scope of requested tokens, for OAUTHBEARER, if the provider requires one.",
    )
    kafka_ca: Path | None = Field(
        default=None,
        json_schema_extra={"default": "those of the system"},
        description="A PEM file of the certificate authorities trusted for brokers. Host names are always checked.",
    )
    kafka_certificate: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of this worker's client certificate for brokers (mTLS), followed by its chain.",
    )
    kafka_key: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the private key of that certificate.",
    )
    kafka_key_password: Secret | None = Field(
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
        description="The lowest level to log: debug, info, warning or error. Lines of libraries are never logged "
        "below info.",
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"http_port": self.http_port, "internal_port": self.internal_port, "probe_port": self.probe_port}
        for (one, port), (other, same) in combinations(ports.items(), 2):
            if port == same:
                raise ValueError(f"{one} and {other} must differ, both are {port}")
        return self

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        given = dict(self)
        if problems := [*kafka_access.contradictions(given), *registry_access.contradictions(given)]:
            raise ValueError("\n".join(problems))
        return self

    @property
    def kafka(self) -> KafkaAccess:
        """How this worker connects to the brokers and logs in."""
        return KafkaAccess(**{field.name: getattr(self, f"kafka_{field.name}") for field in fields(KafkaAccess)})

    @property
    def registry(self) -> RegistryAccess:
        """The URLs and credentials of the schema registry."""
        return RegistryAccess(
            urls=self.schema_registry,
            user=self.schema_registry_user,
            password=self.schema_registry_password,
            token=self.schema_registry_token,
            ca=self.schema_registry_ca,
            certificate=self.schema_registry_certificate,
            key=self.schema_registry_key,
            unknown_after=self.schema_registry_unknown_after,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use flags before the environment, and that before the file; raises ConfigError for an invalid file."""
        in_file = {name: text for name, (_, text) in read_settings_file(settings_cls.model_fields).items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as users see it; `default` is None for required ones.

    The values of those with is_secret do not appear in messages.
    """

    name: str
    default: str | None
    description: str
    is_secret: bool

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
        is_secret = is_unshown(field.annotation, field.metadata)
        described.append(Setting(name, None if default is None else str(default), field.description or "", is_secret))
    return tuple(described)


#: Every setting, in the order in which help and documentation show them.
SETTINGS = _describe()

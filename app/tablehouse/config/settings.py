"""Settings: one frozen object from a file, the environment and flags, in that order of rising weight.

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

    bootstrap_servers: Servers = Field(
        description="Kafka brokers to ask first, and again when none of the known ones answers; host:port with commas "
        "between.",
    )
    tables: Path = Field(
        description="The file that defines the tables.",
    )
    group: Group = Field(
        default="tablehouse",
        description="Workers of one group share the tables between them: the consumer group, and the first part "
        "of the names of its changelog topics.",
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
        description="How many replicas the topics have that a worker creates. By default as many as their source, the "
        "brokers' default.replication.factor, or the number of brokers up to 3, whichever is most.",
    )
    data_dir: Path = Field(
        default="./data",
        validate_default=True,
        description="Where this worker keeps its stores and its identity. One worker to a directory.",
    )
    http_host: Host = Field(
        # Peers have to reach the internal listener for the group to answer at all.
        default="0.0.0.0",  # noqa: S104
        description="The address both listeners bind; 127.0.0.1 shuts out other machines, peers included.",
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
        description="The port of a listener for /livez, /readyz and /metrics alone, so that these need not go where "
        "clients go. The public listener answers them too.",
    )
    advertised_host: AdvertisedHost = Field(
        default_factory=socket.gethostname,
        json_schema_extra={"default": "the machine's host name"},
        description="The host name or IP address at which other workers reach this one.",
    )
    advertised_url: ListenerUrl = Field(
        default_factory=_default_url,
        json_schema_extra={"default": "http://<advertised host>:<internal port>"},
        description="The URL at which other workers reach the internal listener of this one, where it is another than "
        "its port at the advertised host.",
    )
    internal_secrets: Secrets = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="Secrets of the workers, with commas between. Two workers answer each other when they have one in "
        "common, and none is ever sent. Without any, the internal listener answers every request that reaches it.",
    )
    cors_origins: Origins = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="Origins whose pages browsers let read and write tables, like https://app.example.com, with commas "
        "between; or * for every page there is.",
    )
    schema_registry: RegistryUrls = Field(
        default=(),
        validate_default=False,
        json_schema_extra=_NONE,
        description="The schema registry, a URL below which /subjects is; or several of one registry with commas "
        "between, of which the next is asked when one does not answer.",
    )
    schema_registry_user: UserName | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The user name for the schema registry, with the password.",
    )
    schema_registry_password: HeaderSecret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password for the schema registry, with the user name.",
    )
    schema_registry_token: HeaderSecret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The bearer token for the schema registry, instead of user and password.",
    )
    schema_registry_ca: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the authorities that the certificate of the schema registry may come from; without "
        "it, those that the system trusts.",
    )
    schema_registry_certificate: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file with the certificate that this worker shows the schema registry; its key too, unless "
        "that has a file of its own.",
    )
    schema_registry_key: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file with the key, not encrypted, of the certificate that the schema registry is shown.",
    )
    schema_registry_unknown_after: Annotated[float, duration(0, 3600, "from 0s to 1h")] = Field(
        default="30s",
        validate_default=True,
        description="A schema is not there only after the schema registry has said so for this long; the partition of "
        "the record that needs it waits meanwhile. Set it above the time in which a registry hears of schemas that "
        "were registered at another one.",
    )
    zone: Zone = Field(
        default="",
        description="Where this worker runs, like eu-west-1a. Standbys are kept in other zones than their owners where "
        "there are any.",
    )
    memory_budget: Size = Field(
        default="512MiB",
        validate_default=True,
        description="Memory for stores, what is fetched ahead and what waits, in addition to Python itself; at least "
        "64MiB. A worker with many partitions needs more, and says how much when it starts: 0.22MiB for each partition "
        "of a topic and 0.13MiB for each of a table, beyond the first 64MiB of that.",
    )
    session_timeout: Annotated[float, duration(1, 1800, "from 1s to 30m")] = Field(
        default="10s",
        validate_default=True,
        description="After this long without a heartbeat the group takes a worker's partitions away. The "
        "broker has bounds of its own for it (group.min.session.timeout.ms).",
    )
    max_staleness: Annotated[float, duration(0, 31_536_000, "from 0s to 365d")] = Field(
        default="1h",
        validate_default=True,
        description="How old the answer of a copy that is not the active may be when the caller gives no bound: a "
        "standby's staleness, or the time since a suspended worker's last good heartbeat.",
    )
    acceptable_lag: Records = Field(
        default=10_000,
        description="A worker that lacks more records of a partition restores it as a standby before it owns it. Set "
        "this to at least a few seconds' worth of records, since the owner goes on while the group rebalances.",
    )
    takeover_interval: Annotated[float, duration(1, 86_400, "from 1s to 1d")] = Field(
        default="1m",
        validate_default=True,
        description="Minimum time between rebalances requested by a worker that has restored what it is to take over.",
    )
    request_timeout: Annotated[float, duration(0.01, 600, "from 10ms to 10m")] = Field(
        default="5s",
        validate_default=True,
        description="How long one read may take, its hops to other workers included.",
    )
    shutdown_timeout: Annotated[float, duration(1, 3600, "from 1s to 1h")] = Field(
        default="25s",
        validate_default=True,
        description="A worker that was told to stop ends after this long at the latest, even if something hangs.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How to connect to the brokers: SSL is TLS, SASL_ is a login, and SASL_SSL is both.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="How this worker logs in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.",
    )
    kafka_sasl_username: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The user name, with PLAIN and SCRAM.",
    )
    kafka_sasl_password: Secret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The password, with PLAIN and SCRAM.",
    )
    kafka_oauth_token_url: TokenUrl | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="Where tokens come from with OAUTHBEARER: the token endpoint of the identity provider.",
    )
    kafka_oauth_client_id: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The client id that asks for tokens, with OAUTHBEARER.",
    )
    kafka_oauth_client_secret: Secret | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The secret of the client, with OAUTHBEARER.",
    )
    kafka_oauth_scope: Text | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="The scope to request tokens for, with OAUTHBEARER, where the provider wants one.",
    )
    kafka_ca: Path | None = Field(
        default=None,
        json_schema_extra={"default": "those of the system"},
        description="A PEM file of the authorities that the brokers' certificates are trusted from. Host names are "
        "always checked.",
    )
    kafka_certificate: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the certificate that this worker shows to brokers (mTLS), its chain after it.",
    )
    kafka_key: Path | None = Field(
        default=None,
        json_schema_extra=_NONE,
        description="A PEM file of the private key of that certificate.",
    )
    kafka_key_password: Secret | None = Field(
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
        """Where the schema registry is, and how this worker is let in."""
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
        """Let flags win over the environment, and that over the file; raises ConfigError for a bad file."""
        in_file = {name: text for name, (_, text) in read_settings_file(settings_cls.model_fields).items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people see it; `default` is None for those that have to be given.

    is_secret is set for those of which no message repeats a value.
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

"""The ports of the demo, and errors if they are in use."""

from collections.abc import Mapping
from dataclasses import dataclass

from tablehouse.errors import ConfigError
from tablehouse.testing.processes import port_is_free

#: Number of workers of the demo.
WORKERS = 2

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Ports:
    """The first worker's ports, the next workers have the next ones; the broker's, and PostgreSQL's."""

    http: int
    internal: int
    broker: int
    postgres: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ports":
        """Read DEMO_HTTP_PORT, DEMO_INTERNAL_PORT, DEMO_BROKER_PORT and DEMO_POSTGRES_PORT; raises ConfigError."""
        return cls(
            http=_port(environment, "DEMO_HTTP_PORT", 8081),
            internal=_port(environment, "DEMO_INTERNAL_PORT", 9081),
            broker=_port(environment, "DEMO_BROKER_PORT", 9092),
            postgres=_port(environment, "DEMO_POSTGRES_PORT", 5433),
        )

    def require_free(self, *, own_broker: bool, own_postgres: bool = False) -> None:
        """Raise ConfigError for the first port that is in use, naming it and the variable that changes it."""
        needed = [
            *((self.http + index, f"worker {index + 1}", "DEMO_HTTP_PORT") for index in range(WORKERS)),
            *(
                (self.internal + index, f"worker {index + 1}'s internal listener", "DEMO_INTERNAL_PORT")
                for index in range(WORKERS)
            ),
        ]
        if own_broker:
            needed.append((self.broker, "the embedded Kafka", "DEMO_BROKER_PORT"))
        if own_postgres:
            needed.append((self.postgres, "PostgreSQL", "DEMO_POSTGRES_PORT"))
        for port, user, variable in needed:
            if not port_is_free(port):
                first = f" (the first of {WORKERS} in a row)" if port not in {self.broker, self.postgres} else ""
                raise ConfigError(
                    f"port {port} of 127.0.0.1 is in use, and {user} needs it: end what listens there, "
                    f"or choose another with {variable}=<port>{first}"
                )


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable) or str(default)
    highest = _MAX_PORT - WORKERS + 1
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
        raise ConfigError(f"{variable}={text!r}: it must be a port from 1 to {highest}")
    return int(text)

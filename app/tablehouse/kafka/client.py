"""Connection parameters shared by all Kafka clients of a worker."""

from dataclasses import dataclass
from typing import Any

import tablehouse.kafka.metadata_requests  # noqa: F401 - before any client is made
from tablehouse.kafka.security import PLAINTEXT, Security


@dataclass(frozen=True, slots=True)
class Connection:
    """The brokers' addresses, and how to connect to them.

    request_timeout is in seconds and applies to each request.
    """

    bootstrap_servers: str
    client_id: str
    request_timeout: float = 10.0
    security: Security = PLAINTEXT

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments common to all aiokafka clients."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_timeout * 1000),
            **self.security.arguments(),
        }

"""The policy that every request asks, the fast path for simple GETs included."""

from enum import StrEnum
from typing import Protocol

from tablehouse.model import ANONYMOUS, Principal


class Right(StrEnum):
    """What an operation needs: to read rows by key, to scan, to follow changes, to write, or to see the cluster."""

    READ = "read"
    SCAN = "scan"
    CHANGES = "changes"
    WRITE = "write"
    ADMIN = "admin"


class Policy(Protocol):
    """Who a caller is, and what it may do."""

    def identify(self, credentials: str | None) -> Principal:
        """Return whose credentials these are, None for a caller that shows none; raises RequestError."""

    def require(self, principal: Principal, right: Right, table: str) -> None:
        """Raise RequestError where a principal lacks a right; table is empty for what concerns no single table.

        Whether there is such a table does not matter, and the error does not tell.
        """


class OpenPolicy:
    """Every caller is anonymous and may do everything."""

    def identify(self, credentials: str | None) -> Principal:  # noqa: ARG002 - as Policy has it
        """Return the anonymous principal."""
        return ANONYMOUS

    def require(self, principal: Principal, right: Right, table: str) -> None:
        """Nothing is forbidden."""


OPEN = OpenPolicy()

"""The settings of the schema registry, and which of them belong together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

_USER, _PASSWORD, _TOKEN = "schema_registry_user", "schema_registry_password", "schema_registry_token"
_CERTIFICATE, _KEY = "schema_registry_certificate", "schema_registry_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """The URLs and credentials of the schema registry; no URLs if there is none.

    A schema counts as missing once the registry has not known it for `unknown_after` seconds.
    """

    urls: tuple[str, ...] = ()
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    unknown_after: float = 30.0


def contradictions(given: Mapping[str, object]) -> Iterator[str]:
    """Yield the contradictions between settings, one sentence each; a setting that is not given is None."""
    if (given[_USER] is None) != (given[_PASSWORD] is None):
        yield f"{_USER} and {_PASSWORD} belong together, and one is missing"
    elif given[_USER] is not None and given[_TOKEN] is not None:
        yield f"{_TOKEN} and {_USER} exclude each other; give one of them"
    elif given[_KEY] is not None and given[_CERTIFICATE] is None:
        yield f"{_CERTIFICATE} is missing, which {_KEY} belongs to"

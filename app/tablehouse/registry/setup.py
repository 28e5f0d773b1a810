"""Creates the client of the schema registry from the settings."""

import ssl

import httpx

from tablehouse.catalog.spec import Catalog
from tablehouse.config.registry_access import RegistryAccess
from tablehouse.errors import ConfigError
from tablehouse.formats.schemas import NoSchemas
from tablehouse.registry.client import SchemaRegistry
from tablehouse.registry.saved import NothingSaved, SavedSchemas
from tablehouse.registry.transport import Access, Bearer
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.telemetry import Metrics


def schema_source(
    access: RegistryAccess, catalog: Catalog, directory: DataDirectory, metrics: Metrics
) -> SchemaRegistry | NoSchemas:
    """Return the source of a worker's schemas.

    Raises ConfigError if a table needs a registry and none is set, or a file of keys or certificates cannot be used.
    """
    if not access.urls:
        none = NoSchemas()
        none.require(catalog)
        return none
    saved = SavedSchemas(directory.schemas_file, access.urls)
    return SchemaRegistry(access_of(access), saved, metrics, access.unknown_after)


def schemas_for_commands(access: RegistryAccess, release: str) -> SchemaRegistry | NoSchemas:
    """Return the source of a command's schemas; raises ConfigError for files that cannot be used.

    A schema that the registry does not know counts as missing at once.
    """
    if not access.urls:
        return NoSchemas()
    return SchemaRegistry(access_of(access), NothingSaved(), Metrics(release), unknown_after=0.0)


def access_of(access: RegistryAccess) -> Access:
    """Return the URLs and credentials of the registry. Raises ConfigError for a file that cannot be used."""
    return Access(access.urls, _tls(access), _auth(access))


def _auth(access: RegistryAccess) -> httpx.Auth | None:
    if access.token is not None:
        return Bearer(access.token.get_secret_value())
    if access.user is not None and access.password is not None:
        return httpx.BasicAuth(access.user, access.password.get_secret_value())
    return None


def _tls(access: RegistryAccess) -> ssl.SSLContext:
    authorities = access.ca
    try:
        context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    except OSError as error:
        raise ConfigError(
            f"schema_registry_ca: {authorities} cannot be used ({error.strerror or error}); it must be a PEM file of "
            "certificates"
        ) from error
    certificate, key = access.certificate, access.key
    if certificate is not None:
        try:
            # With an empty password, an encrypted key is an error instead of a question on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise ConfigError(
                f"schema_registry_certificate: {certificate} {'' if key is None else f'and {key} '}cannot be used "
                f"({error.strerror or error}); it must be a certificate and its unencrypted key, in PEM format"
            ) from error
    return context

"""Builds a worker from its settings."""

from dataclasses import dataclass
from importlib.metadata import version as installed_version

from tablehouse.catalog.spec import Catalog
from tablehouse.catalog.view import CatalogView
from tablehouse.config.settings import Settings
from tablehouse.http.server import HttpServer
from tablehouse.kafka.client import Connection
from tablehouse.kafka.faust_worker import run
from tablehouse.kafka.security import security_of
from tablehouse.registry.setup import schema_source
from tablehouse.routing.cluster import ClusterView
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.telemetry import Metrics
from tablehouse.worker.engine import Engine, EngineOptions, SchemaSource
from tablehouse.worker.http_side import ServerOptions, held_bytes, http_server, max_connections
from tablehouse.worker.membership import MemberOptions


@dataclass(frozen=True)
class Worker:
    """A worker that is ready to run. It can only run once."""

    engine: Engine
    server: HttpServer
    metrics: Metrics
    shutdown_timeout: float

    def run(self) -> int:
        """Run until told to stop, and return the exit code; raises SetupError."""
        return run(self.engine, self.server, self.shutdown_timeout)


def assemble(settings: Settings, catalog: Catalog, directory: DataDirectory, files: int) -> Worker:
    """Create and connect all parts of a worker; `files` is its limit of open files.

    Only this module knows all settings; each part gets those that it needs.
    """
    release = installed_version("tablehouse")
    metrics, view, tables = Metrics(release), ClusterView(), CatalogView(catalog)
    schemas = schema_source(settings.registry, catalog, directory, metrics)
    engine = engine_of(settings, tables, directory, metrics, view, schemas)
    server = http_server(
        ServerOptions(
            host=settings.http_host,
            port=settings.http_port,
            internal_port=settings.internal_port,
            probe_port=settings.probe_port,
            advertised_url=settings.advertised_url,
            request_timeout=settings.request_timeout,
            version=release,
            group=settings.group,
            internal_secrets=settings.internal_secrets,
            connections=max_connections(files),
            held_bytes=held_bytes(settings.memory_budget),
            cors_origins=settings.cors_origins,
        ),
        worker_id=directory.worker_id,
        incarnation=directory.incarnation,
        catalog=tables,
        view=view,
        local=engine.local,
        source=engine.local,
        owner=engine.local,
        health=engine.health,
        metrics=metrics,
        turns=engine.turns,
        known=engine.known,
    )
    return Worker(engine, server, metrics, settings.shutdown_timeout)


def engine_of(
    settings: Settings,
    catalog: CatalogView,
    directory: DataDirectory,
    metrics: Metrics,
    view: ClusterView,
    schemas: SchemaSource,
) -> Engine:
    """Create the Kafka side of a worker."""
    member = MemberOptions(
        url=settings.advertised_url,
        zone=settings.zone,
        acceptable_lag=settings.acceptable_lag,
        takeover_interval=settings.takeover_interval,
    )
    options = EngineOptions(
        group=settings.group,
        dead_letter_topic=settings.dead_letter_topic,
        replication_factor=settings.replication_factor,
        session_timeout=settings.session_timeout,
        max_staleness=settings.max_staleness,
        memory_budget=settings.memory_budget,
        member=member,
    )
    connection = Connection(settings.bootstrap_servers, directory.worker_id, security=security_of(settings.kafka))
    return Engine(options, connection, catalog, directory, metrics, view, schemas)

"""The command line: `tablehouse worker`, `init`, `check`, `peek`, `topics`, `dead-letters` and `skip`."""

import asyncio
import atexit
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version as installed_version
from typing import Any

import click
import uvloop

from app.catalog.load import load_catalog
from app.check_cli import check
from app.config import CONFIG_VARIABLE, SETTINGS, Setting, Settings, load_settings
from app.dead_letters_cli import dead_letters
from app.errors import SetupError
from app.init_cli import init
from app.log_pipe import LogPipe
from app.peek_cli import peek
from app.routing.cluster import ClusterView
from app.skip_cli import skip
from app.stores.data_directory import UMASK, DataDirectory
from app.telemetry import Metrics, configure_logging, log_uncaught
from app.topics_cli import topics

#: The exit code of a process that cannot start as configured; click uses it for bad usage too.
EXIT_SETUP = 2

#: The option of glibc's mallopt() for the size from which on an allocation is one of the system's own (malloc.h), and
#: that size. Fetches and batches of common rows are smaller.
_M_MMAP_THRESHOLD = -3
_LARGE_ALLOCATION_BYTES = 4 << 20

#: Seconds that a worker that ends waits for its last lines to be read.
_LAST_LINES_SECONDS = 1.0


class _Group(click.Group):
    """Turns a SetupError of any command into its message on stderr and EXIT_SETUP, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SetupError as error:
            click.echo(str(error), err=True)
            ctx.exit(EXIT_SETUP)


@click.group(cls=_Group)
@click.version_option(package_name="tablehouse", message="%(prog)s %(version)s")
def main() -> None:
    """Kafka topics as tables: the latest row for a key, over HTTP, from any worker."""


for _command in (init, check, peek, topics, dead_letters, skip):
    main.add_command(_command)


def _setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    for setting in reversed(SETTINGS):
        command = click.option(setting.flag, setting.name, metavar="VALUE", help=_help(setting))(command)
    return command


def _help(setting: Setting) -> str:
    default = "required" if setting.default is None else f"default: {setting.default}"
    return f"{setting.description} [{setting.variable}; {default}]"


@main.command(
    help="Run one worker until it is told to stop.\n\n"
    "A setting comes from its flag, else from its environment variable, else from the YAML file that "
    f"{CONFIG_VARIABLE} names, where it is spelled like the flag with _ for -, else it is the default. "
    "Exit code 2 means that it cannot start as configured.",
    context_settings={"allow_extra_args": True},
)
@_setting_flags
@click.pass_context
def worker(ctx: click.Context, /, **flags: str | None) -> None:
    """Run one worker; its exit code is the process's."""
    if ctx.args:
        # click would repeat them, and they may be the rest of a password.
        raise click.UsageError(
            f"there are {len(ctx.args)} arguments that belong to no setting; quote values that have blanks"
        )
    settings = load_settings({name: value for name, value in flags.items() if value is not None})
    sys.exit(_run_worker(settings))


def _run_worker(settings: Settings) -> int:
    """Wire the parts of a worker together and run them."""
    # The first process of a container would ignore the signal until Faust has handlers of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log = LogPipe(sys.stderr.fileno())
    sys.stderr = log
    atexit.register(log.finish, _LAST_LINES_SECONDS)
    os.umask(UMASK)
    files = _allow_many_files()
    _return_large_memory()
    catalog = load_catalog(settings.tables)
    directory = DataDirectory.acquire(settings.data_dir)
    configure_logging(settings.log_format, settings.log_level, directory.worker_id)
    log_uncaught()
    # Before Faust is imported, which makes objects on the current loop.
    asyncio.set_event_loop(uvloop.new_event_loop())

    # Imported here so that `check` and `--help` start without Kafka's clients.
    from app.http.server import HttpServer, ServerOptions, held_bytes, max_connections  # noqa: PLC0415
    from app.kafka.engine import Engine  # noqa: PLC0415
    from app.kafka.worker import run  # noqa: PLC0415
    from app.registry.setup import schema_source  # noqa: PLC0415

    release = installed_version("tablehouse")
    metrics, view = Metrics(release), ClusterView()
    log.on_drop = metrics.log_lines_dropped.inc
    schemas = schema_source(settings, catalog, directory, metrics)
    engine = Engine(settings, catalog, directory, metrics, view, schemas)
    server = HttpServer(
        ServerOptions(
            host=settings.http_host,
            port=settings.http_port,
            internal_port=settings.internal_port,
            probe_port=settings.probe_port,
            advertised_url=settings.advertised_url,
            request_timeout=settings.request_timeout,
            version=release,
            group=settings.group,
            internal_secrets=[secret.get_secret_value() for secret in settings.internal_secrets],
            connections=max_connections(files),
            held_bytes=held_bytes(settings.memory_budget),
            cors_origins=settings.cors_origins,
        ),
        worker_id=directory.worker_id,
        incarnation=directory.incarnation,
        catalog=catalog,
        view=view,
        local=engine.local,
        source=engine.local,
        health=engine.health,
        metrics=metrics,
        turns=engine.turns,
        known=engine.known,
    )
    return run(engine, server, settings.shutdown_timeout)


def _allow_many_files() -> int:
    """Raise the limit of open files as far as this process may, and return it.

    Every connection is a file, and so is every SST. Many systems begin with 1,024, for the sake of programs that could
    not do with more.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def _return_large_memory() -> None:
    """Have the C library give the memory of large rows back to the system as soon as they are done with.

    glibc does so at first, and learns from what is freed to keep up to 32 MiB of it: after a few rows of 10 MB a worker
    took 100 MiB more than it used. Other C libraries have no such setting.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_ALLOCATION_BYTES)


if __name__ == "__main__":
    main(prog_name="tablehouse")

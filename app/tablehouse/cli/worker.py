"""`tablehouse worker`: every setting has a flag."""

import sys
from collections.abc import Callable

import click

from tablehouse.config.load import load_settings
from tablehouse.config.settings import SETTINGS, Setting
from tablehouse.config.settings_file import CONFIG_VARIABLE
from tablehouse.worker.process import run_worker


def _setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    for setting in reversed(SETTINGS):
        command = click.option(setting.flag, setting.name, metavar="VALUE", help=_help(setting))(command)
    return command


def _help(setting: Setting) -> str:
    default = "required" if setting.default is None else f"default: {setting.default}"
    return f"{setting.description} [{setting.variable}; {default}]"


@click.command(
    help="Run one worker until it is told to stop.\n\n"
    "Settings are read from flags, then environment variables, then the YAML file that "
    f"{CONFIG_VARIABLE} names (spelled like the flags, with _ for -), then defaults. "
    "Exit code 2 means that the worker cannot start as configured.",
    context_settings={"allow_extra_args": True},
)
@_setting_flags
@click.pass_context
def worker(ctx: click.Context, /, **flags: str | None) -> None:
    """Run one worker; its exit code is the process's."""
    if ctx.args:
        # click would print them, and they may be part of a password.
        raise click.UsageError(f"there are {len(ctx.args)} unexpected arguments; quote values that contain spaces")
    settings = load_settings({name: value for name, value in flags.items() if value is not None})
    sys.exit(run_worker(settings))

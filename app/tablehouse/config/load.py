"""Loads Settings from flags, environment and file, or reports every problem in them."""

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tablehouse.config.settings import PREFIX, SETTINGS, Setting, Settings
from tablehouse.config.settings_file import CONFIG_VARIABLE, read_settings_file, suggestion
from tablehouse.errors import ConfigError
from tablehouse.masking import without_user_info

# Variables that Kubernetes sets in the pods of a namespace with a service called tablehouse or tablehouse-<x>.
_SERVICE_LINK = re.compile(r"TABLEHOUSE_(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings of this process; `flags` contains the given ones by setting name.

    Raises ConfigError with every problem on a separate line, each with the setting and its source.
    """
    problems = [_unknown_variable(name) for name in sorted(os.environ) if _is_unknown(name)]
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        # A default derived from an invalid setting; that setting is reported itself.
        problems += [
            _explain(detail, flags) for detail in error.errors() if detail["type"] != "default_factory_not_called"
        ]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _is_unknown(variable: str) -> bool:
    known = {CONFIG_VARIABLE, *(setting.variable for setting in SETTINGS)}
    return variable.startswith(PREFIX) and variable not in known


def _unknown_variable(variable: str) -> str:
    if _SERVICE_LINK.fullmatch(variable):
        hint = "if Kubernetes set it for a service, start the pod with enableServiceLinks: false"
    else:
        hint = suggestion(variable, [CONFIG_VARIABLE, *(setting.variable for setting in SETTINGS)])
    return f"environment: {variable} is not a setting; {hint}"


def _explain(detail: ErrorDetails, flags: Mapping[str, Any]) -> str:
    reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    if not detail["loc"]:
        return "\n".join(f"settings: {line}" for line in reason.splitlines())
    setting = next(setting for setting in SETTINGS if setting.name == detail["loc"][0])
    if detail["type"] == "missing":
        return (
            f"settings: {setting.name} is missing; set {setting.variable}, {setting.flag} "
            f"or {setting.name} in the file that {CONFIG_VARIABLE} names"
        )
    if detail["type"] == "literal_error":
        reason = f"must be {detail['ctx']['expected']}"
    shown = "it is not shown here" if setting.is_secret else f"it is {without_user_info(str(detail['input']))!r}"
    return f"{_origin(setting, flags)}: {reason}; {shown}"


def _origin(setting: Setting, flags: Mapping[str, Any]) -> str:
    if setting.name in flags:
        return f"flag: {setting.flag}"
    if setting.variable in os.environ:
        return f"environment: {setting.variable}"
    file = read_settings_file([known.name for known in SETTINGS])
    if setting.name in file:
        return f"{os.environ[CONFIG_VARIABLE]}:{file[setting.name][0]}: {setting.name}"
    return f"default: {setting.name}"

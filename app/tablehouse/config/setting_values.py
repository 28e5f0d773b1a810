"""Parses the values of settings: each function returns the value of a text, or raises ValueError.

The message begins with "must" and describes valid values.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MIN_MEMORY = 64 << 20
_MAX_PORT = 65535
_MAX_SECRET_CHARACTERS = 10_000
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

# The patterns of some settings for JSON Schemas, without their bounds.
_NUMBER = r"^[0-9]{1,18}(\.[0-9]{1,9})? ?"
_Duration = Annotated[str, Field(pattern=_NUMBER + r"(ms|s|m|h|d)?$")] | Annotated[int, Field(ge=0)]
Size = Annotated[str, Field(pattern=_NUMBER + r"(B|KiB|MiB|GiB|TiB)?$")] | Annotated[int, Field(ge=_MIN_MEMORY)]
Records = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | Annotated[int, Field(ge=0)]
Replicas = Annotated[str, Field(pattern=r"^[0-9]{1,3}$")] | Annotated[int, Field(ge=1)]
Topic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Group = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$")]


def _quantity(value: object, units: Mapping[str, float]) -> float | None:
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([a-zA-Z]*)", str(value))
    return float(match[1]) * units[match[2]] if match and match[2] in units else None


def duration(lowest: float, highest: float, words: str) -> BeforeValidator:
    """Return a parser of durations between two bounds in seconds, which `words` describe."""

    def seconds(value: object) -> float:
        length = _quantity(value, _SECONDS)
        if length is None or not lowest <= length <= highest:
            raise ValueError(f"must be a duration {words}, like 500ms, 10s, 5m or 1h")
        return length

    return BeforeValidator(seconds, json_schema_input_type=_Duration)


def memory(value: object) -> int:
    """Read a size in bytes."""
    size = _quantity(value, _BYTES)
    if size is None or size < _MIN_MEMORY:
        raise ValueError("must be a size of at least 64MiB, like 512MiB or 4GiB")
    return int(size)


def secrets(value: object) -> tuple[SecretStr, ...]:
    """Read one or several secrets."""
    given = [secret.strip() for secret in str(value).split(",")]
    if not all(re.fullmatch(r"[\x21-\x7e]{16,200}", secret) for secret in given):
        raise ValueError(
            "must be a secret of 16 to 200 printable ASCII characters without spaces and commas, or several separated "
            "by commas, or be left out"
        )
    return tuple(SecretStr(secret) for secret in given)


def records(value: object) -> int:
    """Read a number of records."""
    if not re.fullmatch(r"[0-9]{1,18}", str(value)):
        raise ValueError("must be a number of records, like 10000; 0 for none")
    return int(str(value))


def replicas(value: object) -> int:
    """Read a number of replicas."""
    if not re.fullmatch(r"[1-9][0-9]{0,2}", str(value)):
        raise ValueError("must be a number of replicas, like 3")
    return int(str(value))


def zone(value: object) -> str:
    """Read the name of a zone."""
    if not re.fullmatch(r"[a-zA-Z0-9._-]{0,100}", str(value)):
        raise ValueError("must be up to 100 letters, digits, '.', _ and -")
    return str(value)


def port(value: object) -> int:
    """Read a port."""
    if not re.fullmatch(r"[0-9]{1,5}", str(value)) or not 1 <= int(str(value)) <= _MAX_PORT:
        raise ValueError(f"must be a port from 1 to {_MAX_PORT}")
    return int(str(value))


def servers(value: object) -> str:
    """Read brokers."""
    given = [server.strip() for server in str(value).split(",")]
    for server in given:
        name, _, number = server.rpartition(":")
        try:
            port(number)
        except ValueError:
            name = ""
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise ValueError("must be host:port, or several separated by commas, like kafka-1:9092,kafka-2:9092")
    return ",".join(given)


def group(value: object) -> str:
    """Read the name of a group."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}", str(value)):
        raise ValueError("must be up to 100 letters, digits, '.', _ and -, a letter or digit first")
    return str(value)


def host(value: object) -> str:
    """Read an address to bind."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", str(value)):
        raise ValueError("must be an address or a host name of this machine, like 0.0.0.0 or 127.0.0.1")
    return str(value)


def advertised_host(value: object) -> str:
    """Read a host name or an IP address, without brackets."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}|[0-9a-fA-F:.]{2,45}", str(value)):
        raise ValueError("must be a host name or an IP address as other workers reach it, without a port or brackets")
    return str(value)


def path(value: object) -> Path:
    """Read a path."""
    if not str(value) or "\0" in str(value):
        raise ValueError("must be a path")
    return Path(str(value))


def url(value: object) -> str:
    """Read the URL of a listener."""
    problem = ValueError("must be http://host or http://host:port and nothing after it, as peers reach it")
    try:
        parts = urlsplit(str(value))
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        raise problem from None
    if not usable or str(value) != f"http://{parts.netloc}" or not re.fullmatch(r"[\w.:\[\]-]{1,300}", parts.netloc):
        raise problem
    return str(value)


def text(value: object) -> str:
    """Parse an externally assigned name."""
    if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]{0,998}[\x21-\x7e])?", str(value)):
        raise ValueError("must be 1 to 1000 printable ASCII characters, without spaces at either end, or be left out")
    return str(value)


def secret(value: object) -> SecretStr:
    """Read a secret of printable characters."""
    # Files often end with a line break that is not part of the secret.
    given = str(value).rstrip("\r\n")
    if not 1 <= len(given) <= _MAX_SECRET_CHARACTERS or not given.isprintable():
        raise ValueError(f"must be a secret of 1 to {_MAX_SECRET_CHARACTERS} printable characters, or be left out")
    return SecretStr(given)


def token_url(value: object) -> str:
    """Read the URL of a token endpoint."""
    problem = ValueError("must be the https:// or http:// URL of a token endpoint, without user, password and fragment")
    try:
        parts = urlsplit(str(value))
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise problem from None
    if not usable or "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", str(value)):
        raise problem
    return str(value)


def registry_urls(value: object) -> tuple[str, ...]:
    """Read the URLs of a schema registry."""
    urls = [url.strip().rstrip("/") for url in str(value).split(",")]
    for url in urls:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w.~%/-]*)?", url):
            raise ValueError(
                "must be http://host:port or https://host, with the path below which /subjects is, or several URLs of "
                "one registry separated by commas; set the user and password separately"
            )
    return tuple(urls)


def origins(value: object) -> tuple[str, ...]:
    """Read origins as browsers send them, or * for all."""
    given = [origin.strip().lower() for origin in str(value).split(",")]
    if given == ["*"]:
        return ("*",)
    for origin in given:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", origin):
            raise ValueError(
                "must be origins like https://app.example.com or http://localhost:3000, without a path, separated "
                "by commas, or * alone"
            )
        if origin.startswith(("http:", "https:")) and origin.endswith(_DEFAULT_PORTS[origin.partition(":")[0]]):
            raise ValueError(
                f"must be origins as browsers send them: {origin} without its port, which is the usual one"
            )
    return tuple(given)


def header_secret(value: object) -> SecretStr:
    """Read a secret that is sent in a header."""
    given = str(value).strip()
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?", given):
        raise ValueError("must be at most 8192 printable ASCII characters")
    return SecretStr(given)


def user(value: object) -> str:
    """Read the name of a user."""
    name = str(value).strip()
    if not re.fullmatch(r"[\x20-\x39\x3b-\x7e]{1,255}", name):
        raise ValueError("must be up to 255 printable ASCII characters without a colon")
    return name


def topic(value: object) -> str:
    """Read the name of a topic."""
    if not re.fullmatch(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}", str(value)):
        raise ValueError("must be the name of a topic: up to 249 letters, digits, '.', _ and -")
    return str(value)

"""The names that a listener on loopback answers to, so that no web page reads it through a name of its own.

A browser lets a page ask any address for which the page's own name resolves, and the page's owner decides what that is
(DNS rebinding). The request then carries the page's name in `Host`.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from tablehouse.errors import MisdirectedRequest

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


class Hosts:
    """The names that a listener answers to.

    These are addresses, names without a dot, which no page on the internet has, names below localhost, and one other.
    """

    def __init__(self, own: str | None) -> None:
        self._own = own

    @classmethod
    def of_listener(cls, host: str, advertised_url: str | None) -> Self | None:
        """Return what a listener on an address or host name answers to; None when it is open to other machines."""
        if host.lower() != "localhost" and not _is_loopback(host):
            return None
        return cls(urlsplit(advertised_url).hostname if advertised_url else None)

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise MisdirectedRequest for a request to another host."""
        host = headers.get("Host")
        if host is not None and not self.accepts(host):
            raise MisdirectedRequest(
                f"this worker listens on loopback only and does not answer to the host {host[:200]!r}: send "
                "Host: localhost, or have TABLEHOUSE_HTTP_HOST name another address"
            )

    def accepts(self, host: str) -> bool:
        """Return whether a value of `Host` may be answered."""
        match = _HOST.fullmatch(host.strip())
        if match is None:
            return False
        name = match[1].lower().removesuffix(".")
        if "." not in name or name == self._own or name.endswith(".localhost"):
            return True
        return _address_of(name) is not None


def _is_loopback(host: str) -> bool:
    address = _address_of(host)
    return address is not None and address.is_loopback


def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None

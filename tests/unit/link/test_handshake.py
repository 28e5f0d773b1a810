"""What an asking worker makes of answers to its request for a link."""

import pytest

from tablehouse.link.handshake import Hello, NoLink, read_answer
from tablehouse.model import HostInfo
from tablehouse.routing.ports import NotAsked

HOST = HostInfo("b", 1, "http://b:9080")
HELLO = Hello("b 1", "a 1", "0" * 32)


@pytest.mark.parametrize(
    ("head", "error", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", NoLink, "status 404"),
        # As a listener answers that has as many connections as it may have.
        (b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\n", NoLink, "status 503"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", NoLink, "status 101"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", NotAsked, "does not answer as a worker does"),
    ],
)
def test_an_answer_that_begins_no_link_says_why(head: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_answer(head, HELLO, HOST, ())

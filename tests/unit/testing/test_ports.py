import socket

import pytest

from tablehouse.errors import ConfigError
from tablehouse.testing.ports import Ports
from tablehouse.testing.processes import free_port


def test_the_ports_are_those_of_the_readme_unless_the_environment_says_otherwise() -> None:
    assert Ports.from_environment({}) == Ports(http=8081, internal=9081, broker=9092, postgres=5433)
    assert Ports.from_environment({"DEMO_HTTP_PORT": "18081", "DEMO_BROKER_PORT": ""}) == Ports(
        http=18081, internal=9081, broker=9092, postgres=5433
    )


@pytest.mark.parametrize("text", ["web", "0", "-1", "65535", "8081.5", "٣"])
def test_a_port_that_is_none_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(ConfigError, match=r"DEMO_INTERNAL_PORT=.* from 1 to 65534"):
        Ports.from_environment({"DEMO_INTERNAL_PORT": text})


def test_a_busy_port_is_named_with_the_variable_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        busy = other.getsockname()[1]
        ports = Ports(http=free_port(), internal=busy - 1, broker=free_port(), postgres=free_port())
        with pytest.raises(ConfigError, match=rf"port {busy} .*DEMO_INTERNAL_PORT=<port> \(the first of 2"):
            ports.require_free(own_broker=True)


def test_the_brokers_port_matters_only_when_the_demo_starts_the_broker() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        broker = other.getsockname()[1]
        ports = Ports(http=free_port(), internal=free_port(), broker=broker, postgres=free_port())

        ports.require_free(own_broker=False)
        with pytest.raises(ConfigError, match=f"port {ports.broker} .*the embedded Kafka"):
            ports.require_free(own_broker=True)


def test_the_port_of_postgresql_matters_only_to_the_demo_that_starts_one() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        postgres = other.getsockname()[1]
        ports = Ports(http=free_port(), internal=free_port(), broker=free_port(), postgres=postgres)

        ports.require_free(own_broker=True)
        with pytest.raises(ConfigError, match=f"port {postgres} .*PostgreSQL.*DEMO_POSTGRES_PORT=<port>$"):
            ports.require_free(own_broker=True, own_postgres=True)

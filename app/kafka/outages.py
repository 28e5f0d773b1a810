"""Says why no broker serves this worker, which the errors of aiokafka's clients do not."""

from aiokafka.errors import KafkaError

from app.errors import BrokersRefuse
from app.kafka.client import Connection
from app.kafka.login import check_login, why_shut_out
from app.kafka.rebootstrap import advertised_brokers


async def explain_outage(connection: Connection) -> str | None:
    """Return what keeps this worker from the brokers, with every host and port that was tried; None when nothing does.

    Takes a request time-out or two where a host is silent.
    """
    try:
        await check_login(connection)
    except BrokersRefuse as error:
        return str(error)
    except KafkaError as error:
        return f"no broker reachable: {error}"
    brokers = {f"{broker.host}:{broker.port}": broker.nodeId for broker in await advertised_brokers(connection)}
    shut_out = await why_shut_out(connection, brokers)
    if not shut_out:
        return None
    return "; ".join(
        f"broker {brokers[address]} advertises itself as {address} (advertised.listeners), where this worker does not "
        f"reach it: {why}"
        for address, why in shut_out.items()
    )

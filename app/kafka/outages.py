"""Says why no broker serves this worker, which the errors of aiokafka's clients do not."""

from aiokafka.errors import KafkaError

from app.errors import BrokersRefuse
from app.kafka.client import Connection
from app.kafka.login import check_login, unreachable_brokers


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
    return "; ".join(await unreachable_brokers(connection)) or None

"""Explains why brokers do not serve this client, since the errors of aiokafka's clients do not say."""

from aiokafka.errors import KafkaError

from tablehouse.kafka.client import Connection
from tablehouse.kafka.login import check_login, unreachable_brokers


async def explain_outage(connection: Connection, symptom: str) -> str:
    """Return why the brokers do not serve this client, with every host and port that was tried.

    Returns `symptom`, a description of the error, if every broker can be reached. Raises BrokersRefuse if every broker
    refuses the login or the certificate. Takes one or two request timeouts if a host does not respond.
    """
    try:
        await check_login(connection)
    except KafkaError as error:
        return f"no broker reachable: {error}"
    unreachable = await unreachable_brokers(connection)
    return f"{'; '.join(unreachable)} ({symptom})" if unreachable else symptom

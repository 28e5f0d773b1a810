"""The names of mode and aiokafka that other packages of a worker need."""

from aiokafka.errors import KafkaError
from mode import Service as Service  # noqa: PLC0414 - the name by which others import it

from tablehouse.tasks.log import OutcomeUnknown

#: Errors that end once brokers are reachable.
UNREACHABLE = (KafkaError, OutcomeUnknown, TimeoutError)

"""What of mode and aiokafka the parts of a worker outside this package need to know."""

from aiokafka.errors import KafkaError
from mode import Service as Service  # noqa: PLC0414 - the name by which others import it

from tablehouse.tasks.log import OutcomeUnknown

#: What passes once brokers can be reached.
UNREACHABLE = (KafkaError, OutcomeUnknown, TimeoutError)

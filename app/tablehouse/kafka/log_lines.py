"""The log lines of Faust, mode and aiokafka that are left out."""

import logging

#: Loggers whose info lines report every started service and every joined group. The worker's own lines are shorter, and
#: come from structlog; lines under the name of this package are mode's, about its services.
QUIET = ("aiokafka", "faust", "mode", "tablehouse")


def is_expected(record: logging.LogRecord) -> bool:
    """Return whether a line reports an error that is expected in normal operation.

    A cluster without consumer groups has no coordinator until the first one joins. The worker itself logs a coordinator
    that remains unavailable.
    """
    return record.name.startswith("aiokafka.") and record.msg == "Group Coordinator Request failed: %s"

"""Which log lines of Faust, mode and aiokafka are left out."""

import logging

#: Loggers whose lines of level info tell of every service started and every group joined, which the worker's own lines
#: tell shorter. Those of this package are mode's, about its services; the worker's own lines are structlog's.
QUIET = ("aiokafka", "faust", "mode", "tablehouse")


def is_no_news(record: logging.LogRecord) -> bool:
    """Return whether a line tells of nothing wrong.

    A cluster without consumer groups has no coordinator until the first one joins. The worker itself logs a coordinator
    that stays away.
    """
    return record.name.startswith("aiokafka.") and record.msg == "Group Coordinator Request failed: %s"

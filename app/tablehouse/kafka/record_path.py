"""Disables Faust's own record path: calling it is a bug."""

from typing import Any

from faust.transport.consumer import Consumer


class NoRecordPath(Consumer):  # type: ignore[misc]  # faust is not typed enough
    """The consumer methods used by Faust's own record path and recovery. The lane replaces both, so a call is a bug."""

    def _no(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("Faust's record path is not in use")

    _getmany = _no
    _seek = _no
    _to_message = _no
    create_topic = _no
    earliest_offsets = _no
    highwater = _no
    highwaters = _no
    key_partition = _no
    position = _no
    seek_to_committed = _no
    seek_wait = _no
    topic_partitions = _no

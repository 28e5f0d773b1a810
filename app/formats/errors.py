"""Why bytes are not what their format says."""


class DecodeError(ValueError):
    """The bytes of a record's key or value are not in the table's format.

    The message names the format and the reason, never the bytes: they are a producer's data and go into logs.
    """

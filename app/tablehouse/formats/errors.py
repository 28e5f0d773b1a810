"""Errors of data that is not in its format."""


class DecodeError(ValueError):
    """The bytes of a record's key or value are not in the table's format.

    The message names the format and the reason, never the bytes: they are a producer's data and go into logs.
    """


class StoredKeyError(ValueError):
    """The bytes are not a stored key of the table's format: a fault of the store or the program, not of a record.

    The message names the format and the reason, never the bytes.
    """


#: Exceptions that a decoder may raise on malformed input. A record that can be kept as a dead letter must not stop
#: every worker that reads it. An OSError or MemoryError is not the fault of the record.
DECODE_ERRORS = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError)


def reason_of(error: Exception) -> str:
    """Return what is wrong with a record; only the type of errors other than DecodeError, which may quote it."""
    return str(error) if isinstance(error, DecodeError) else f"reading it failed with a {type(error).__name__}"

"""Every error that reaches a caller, with its code, its HTTP status and whether a retry can help.

    TablehouseError
    |-- SetupError                 the process cannot start as configured (exit code 2)
    |   |-- ConfigError            a setting
    |   |-- CatalogError           tables.yaml
    |   |-- TopicError             a topic is missing, or is not what it has to be
    |   |-- BrokersRefuse          no broker lets this worker in, or none can be trusted
    |   |-- GroupRefused           the brokers do not let this worker take part in its group
    |   |-- BrokerUnfit            the broker lacks what the changelog protocol needs
    |   `-- DataDirectoryError     the data directory is in use, or is not ours
    `-- RequestError               a request gets an answer other than a row
        |-- TableNotFound          404 table_not_found
        |-- KeyNotFound            404 key_not_found
        |-- RouteNotFound          404 route_not_found
        |-- InvalidKey             400 invalid_key
        |-- InvalidParameter       400 invalid_parameter
        |-- InvalidBody            400 invalid_body
        |-- MethodNotAllowed       405 method_not_allowed
        |-- NotWritable            405 not_writable
        |-- NotAcceptable          406 not_acceptable
        |-- RequestTimeout         408 request_timeout
        |-- PreconditionFailed     412 precondition_failed
        |-- PayloadTooLarge        413 payload_too_large
        |-- UriTooLong             414 uri_too_long
        |-- UnsupportedMediaType   415 unsupported_media_type
        |-- HeadersTooLarge        431 headers_too_large
        |-- Unauthenticated        401 unauthenticated
        |-- NotOwner               421 not_owner
        |-- MisdirectedRequest     421 misdirected_request
        |-- PartitionUnassigned    503 partition_unassigned
        |-- PartitionRestoring     503 partition_restoring
        |-- TooStale               503 too_stale
        |-- PositionNotReached     503 position_not_reached
        |-- MisplacedKeys          503 misplaced_keys
        |-- KeySchemaUnknown       503 key_schema_unknown
        |-- SchemaUnavailable      503 schema_unavailable
        |-- OwnerUnreachable       503 owner_unreachable
        |-- SourceUnavailable      503 source_unavailable
        |-- WriteRefused           503 write_refused
        |-- Draining               503 draining
        |-- Overloaded             503 overloaded
        |-- DeadlineExceeded       504 deadline_exceeded
        |-- UnsupportedTransferCoding 501 unsupported_transfer_coding
        |-- HttpVersionNotSupported 505 http_version_not_supported
        `-- InternalError          500 internal

This module imports nothing of the project, so that any layer can raise any of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class TablehouseError(Exception):
    """The root: catch this to catch everything the project raises on purpose."""


class SetupError(TablehouseError):
    """The process cannot start as configured; the message says what would be right."""


class ConfigError(SetupError):
    """A setting is missing or cannot be used; the message names it and where it came from."""


class CatalogError(SetupError):
    """A tables.yaml that cannot work.

    `problems` are the single findings, each `file:line: field: what would be right`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TopicError(SetupError):
    """A topic is missing, or its partitions or settings are not what they have to be."""


class BrokersRefuse(SetupError):
    """Every broker refused this worker's login or certificate, or showed a certificate that it does not trust."""


class GroupRefused(SetupError):
    """The group's coordinator refuses this worker, and would again: an ACL, the group's protocol, a setting."""


class BrokerUnfit(SetupError):
    """The broker does not refuse old producer epochs, on which exactly-once tables rest."""


class DataDirectoryError(SetupError):
    """The data directory is in use by another process, or belongs to something else."""


class RequestError(TablehouseError):
    """A request gets an answer other than a row.

    `details` go into the problem document as members of their own (table, partition, generation, tried,
    progress, ...). `retry_after` is in seconds, and becomes the `Retry-After` header.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, retry_after: int | None = None, **details: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after if retry_after is not None or not self.retryable else 1
        self.details: Mapping[str, Any] = details


class TableNotFound(RequestError):
    """The catalog has no such table."""

    code, status, title = "table_not_found", 404, "No such table"


class KeyNotFound(RequestError):
    """A caught-up active looked, or the standby of a caller who asked for one: the table has no row for the key."""

    code, status, title = "key_not_found", 404, "No such key"


class RouteNotFound(RequestError):
    """The path belongs to no route."""

    code, status, title = "route_not_found", 404, "No such route"


class InvalidKey(RequestError):
    """The key cannot be parsed in the table's key format."""

    code, status, title = "invalid_key", 400, "Invalid key"


class InvalidParameter(RequestError):
    """A query parameter or header is unknown, repeated or has a value that cannot be used."""

    code, status, title = "invalid_parameter", 400, "Invalid parameter"


class InvalidBody(RequestError):
    """The body is not what the route takes, or ended before it was whole."""

    code, status, title = "invalid_body", 400, "Invalid body"


class MethodNotAllowed(RequestError):
    """The route exists, the method does not; `details["allow"]` lists those that do."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class NotWritable(RequestError):
    """The table's definition does not let callers write."""

    code, status, title = "not_writable", 405, "Not writable"


class NotAcceptable(RequestError):
    """The row exists in none of the media types the caller accepts."""

    code, status, title = "not_acceptable", 406, "Not acceptable"


class RequestTimeout(RequestError):
    """The head or the body had not arrived when the time for it ran out; nothing was done."""

    code, status, title = "request_timeout", 408, "Request timeout"
    retryable = True


class PreconditionFailed(RequestError):
    """The row is not as If-Match or If-None-Match of a write wants it: nothing was written.

    `details["etag"]` is the entity tag of the row, and is missing when there is none.
    """

    code, status, title = "precondition_failed", 412, "Precondition failed"


class PayloadTooLarge(RequestError):
    """The body is over the route's limit."""

    code, status, title = "payload_too_large", 413, "Payload too large"


class UriTooLong(RequestError):
    """The key or the whole request line is over its limit."""

    code, status, title = "uri_too_long", 414, "URI too long"


class UnsupportedMediaType(RequestError):
    """The body is of a media type, a charset or an encoding that the route does not take."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class HeadersTooLarge(RequestError):
    """A header, or the whole head of the request, is over its limit."""

    code, status, title = "headers_too_large", 431, "Headers too large"


class Unauthenticated(RequestError):
    """The request does not prove a secret of the worker that was asked; internal, as NotOwner."""

    code, status, title = "unauthenticated", 401, "Unauthenticated"


class NotOwner(RequestError):
    """This worker does not hold the partition, or not as its active; internal, never a caller's last answer."""

    code, status, title = "not_owner", 421, "Not the owner"
    retryable = True


class MisdirectedRequest(RequestError):
    """The listener is on loopback, and the request is to another host."""

    code, status, title = "misdirected_request", 421, "Misdirected request"


class PartitionUnassigned(RequestError):
    """No worker is known to hold the partition."""

    code, status, title = "partition_unassigned", 503, "Partition unassigned"
    retryable = True


class PartitionRestoring(RequestError):
    """The owner has not caught up yet, so it cannot say that a key does not exist."""

    code, status, title = "partition_restoring", 503, "Partition restoring"
    retryable = True


class TooStale(RequestError):
    """The only copy that could answer is older than the bound."""

    code, status, title = "too_stale", 503, "Too stale"
    retryable = True


class PositionNotReached(RequestError):
    """The position that the caller wants to see applied was not reached in time; `position` says how far it is."""

    code, status, title = "position_not_reached", 503, "Position not reached"
    retryable = True


class MisplacedKeys(RequestError):
    """Some keys lie in other partitions than the partitioner says, so a miss proves nothing."""

    code, status, title = "misplaced_keys", 503, "Misplaced keys"


class KeySchemaUnknown(RequestError):
    """No schema of the topic's keys is known yet, so a key in a URL cannot be read."""

    code, status, title = "key_schema_unknown", 503, "Key schema unknown"
    retryable = True


class SchemaUnavailable(RequestError):
    """A schema that the answer or the write needs could not be had from the registry in time; nothing was written."""

    code, status, title = "schema_unavailable", 503, "Schema unavailable"
    retryable = True


class OwnerUnreachable(RequestError):
    """The owner is known but could not be asked."""

    code, status, title = "owner_unreachable", 503, "Owner unreachable"
    retryable = True


class SourceUnavailable(RequestError):
    """No broker took the write, and none will: nothing was written."""

    code, status, title = "source_unavailable", 503, "Source unavailable"
    retryable = True


class WriteRefused(RequestError):
    """The partition's owner applies nothing more until a person acts, so no read would show it: nothing was written."""

    code, status, title = "write_refused", 503, "Write refused"


class Draining(RequestError):
    """This worker is shutting down."""

    code, status, title = "draining", 503, "Draining"
    retryable = True


class Overloaded(RequestError):
    """This worker has no memory, connection or time left for the request; nothing was done."""

    code, status, title = "overloaded", 503, "Overloaded"
    retryable = True


class DeadlineExceeded(RequestError):
    """The request's time ran out before an answer was there."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"
    retryable = True


class UnsupportedTransferCoding(RequestError):
    """The body comes in a transfer coding other than chunked."""

    code, status, title = "unsupported_transfer_coding", 501, "Unsupported transfer coding"


class HttpVersionNotSupported(RequestError):
    """The request is of another version of HTTP than 1.0 and 1.1."""

    code, status, title = "http_version_not_supported", 505, "HTTP version not supported"


class InternalError(RequestError):
    """A fault of ours; the log has the details under the same request id."""

    code, status, title = "internal", 500, "Internal error"

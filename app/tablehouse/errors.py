"""Every error that reaches a caller, with its code, its HTTP status and whether a retry can help.

    TablehouseError
    |-- SetupError                 the process cannot start as configured (exit code 2)
    |   |-- ConfigError            a setting
    |   |-- CatalogError           tables.yaml
    |   |-- TopicError             a topic is missing or misconfigured
    |   |-- BrokersRefuse          no broker accepts this worker, or none can be trusted
    |   |-- GroupRefused           the brokers do not allow this worker into its group
    |   |-- BrokerUnfit            the broker lacks what the changelog protocol needs
    |   `-- DataDirectoryError     the data directory is in use, or belongs to another program
    `-- RequestError               a request gets an answer other than a row
        |-- TableNotFound          404 table_not_found
        |-- KeyNotFound            404 key_not_found
        |-- RouteNotFound          404 route_not_found
        |-- InvalidKey             400 invalid_key
        |-- InvalidParameter       400 invalid_parameter
        |-- InvalidCursor          400 invalid_cursor
        |-- InvalidExpression      400 invalid_expression
        |-- ExpressionFailed       400 expression_failed
        |-- UnorderedKeys          400 unordered_keys
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
    """Base class of all errors that Tablehouse raises deliberately."""


class SetupError(TablehouseError):
    """The process cannot start as configured; the message says how to fix it."""


class ConfigError(SetupError):
    """A setting is missing or invalid; the message names the setting and its source."""


class CatalogError(SetupError):
    """An invalid tables.yaml.

    `problems` are the individual errors, each as `file:line: field: how to fix it`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TopicError(SetupError):
    """A topic is missing, or its partitions or settings are not as required."""


class BrokersRefuse(SetupError):
    """Every broker refused this worker's login or certificate, or showed a certificate that it does not trust."""


class GroupRefused(SetupError):
    """The group's coordinator permanently refuses this worker, because of an ACL, the group's protocol or a setting."""


class BrokerUnfit(SetupError):
    """The broker does not reject old producer epochs, which exactly-once tables depend on."""


class DataDirectoryError(SetupError):
    """The data directory is in use by another process, or belongs to another program."""


class RequestError(TablehouseError):
    """A request gets an answer other than a row.

    `details` become members of the problem document (table, partition, generation, tried, progress, ...). `retry_after`
    is in seconds, and becomes the `Retry-After` header.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, /, *, retry_after: int | None = None, **details: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after if retry_after is not None or not self.retryable else 1
        self.details: Mapping[str, Any] = details


class TableNotFound(RequestError):
    """The catalog has no such table."""

    code, status, title = "table_not_found", 404, "No such table"


class KeyNotFound(RequestError):
    """The table has no row for the key, according to a caught-up active, or to a standby if the caller accepts one."""

    code, status, title = "key_not_found", 404, "No such key"


class RouteNotFound(RequestError):
    """The path matches no route."""

    code, status, title = "route_not_found", 404, "No such route"


class InvalidKey(RequestError):
    """The key cannot be parsed in the table's key format."""

    code, status, title = "invalid_key", 400, "Invalid key"


class InvalidParameter(RequestError):
    """A query parameter or header is unknown, repeated or has a value that cannot be used."""

    code, status, title = "invalid_parameter", 400, "Invalid parameter"


class InvalidCursor(RequestError):
    """The cursor of a scan is damaged, or of another table, definition or range than the request."""

    code, status, title = "invalid_cursor", 400, "Invalid cursor"


class InvalidExpression(RequestError):
    """The text is not an expression; the detail has the place in it."""

    code, status, title = "invalid_expression", 400, "Invalid expression"


class ExpressionFailed(RequestError):
    """The expression has no value for a row, which `details["key"]` names; there is no answer without that row."""

    code, status, title = "expression_failed", 400, "Expression failed"


class UnorderedKeys(RequestError):
    """Rows of the table are not stored in the order of their keys, so it has no ranges."""

    code, status, title = "unordered_keys", 400, "Unordered keys"


class InvalidBody(RequestError):
    """The body is invalid for the route, or incomplete."""

    code, status, title = "invalid_body", 400, "Invalid body"


class MethodNotAllowed(RequestError):
    """The route does not support the method; `details["allow"]` lists those that it does."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class NotWritable(RequestError):
    """The table's definition does not allow writes."""

    code, status, title = "not_writable", 405, "Not writable"


class NotAcceptable(RequestError):
    """The row is not available in any media type that the caller accepts."""

    code, status, title = "not_acceptable", 406, "Not acceptable"


class RequestTimeout(RequestError):
    """The request's headers or body did not arrive in time; nothing was done."""

    code, status, title = "request_timeout", 408, "Request timeout"
    retryable = True


class PreconditionFailed(RequestError):
    """The row does not fulfil the If-Match or If-None-Match of a write: nothing was written.

    `details["etag"]` is the entity tag of the row, absent if there is no row.
    """

    code, status, title = "precondition_failed", 412, "Precondition failed"


class PayloadTooLarge(RequestError):
    """The body exceeds the route's limit."""

    code, status, title = "payload_too_large", 413, "Payload too large"


class UriTooLong(RequestError):
    """The key or the whole request line exceeds its limit."""

    code, status, title = "uri_too_long", 414, "URI too long"


class UnsupportedMediaType(RequestError):
    """The body has a media type, charset or encoding that the route does not accept."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class HeadersTooLarge(RequestError):
    """A header, or all headers of the request together, exceed the limit."""

    code, status, title = "headers_too_large", 431, "Headers too large"


class Unauthenticated(RequestError):
    """The request does not prove knowledge of a secret of the called worker; internal, as NotOwner."""

    code, status, title = "unauthenticated", 401, "Unauthenticated"


class NotOwner(RequestError):
    """This worker does not hold the partition, or not as its active; internal, never the final response to a caller."""

    code, status, title = "not_owner", 421, "Not the owner"
    retryable = True


class MisdirectedRequest(RequestError):
    """The listener is on loopback, and the request is for another host."""

    code, status, title = "misdirected_request", 421, "Misdirected request"


class PartitionUnassigned(RequestError):
    """No worker is known to hold the partition."""

    code, status, title = "partition_unassigned", 503, "Partition unassigned"
    retryable = True


class PartitionRestoring(RequestError):
    """The owner has not caught up yet, so it cannot tell whether a key exists."""

    code, status, title = "partition_restoring", 503, "Partition restoring"
    retryable = True


class TooStale(RequestError):
    """The only copy that could answer is staler than the caller's limit."""

    code, status, title = "too_stale", 503, "Too stale"
    retryable = True


class PositionNotReached(RequestError):
    """The caller's min_position was not reached in time; `position` is the current one."""

    code, status, title = "position_not_reached", 503, "Position not reached"
    retryable = True


class MisplacedKeys(RequestError):
    """Some keys are in other partitions than the partitioner's, so a miss is inconclusive."""

    code, status, title = "misplaced_keys", 503, "Misplaced keys"


class KeySchemaUnknown(RequestError):
    """No schema of the topic's keys is known yet, so the key cannot be encoded."""

    code, status, title = "key_schema_unknown", 503, "Key schema unknown"
    retryable = True


class SchemaUnavailable(RequestError):
    """The registry did not return a required schema in time; nothing was written."""

    code, status, title = "schema_unavailable", 503, "Schema unavailable"
    retryable = True


class OwnerUnreachable(RequestError):
    """The owner is known but could not be reached."""

    code, status, title = "owner_unreachable", 503, "Owner unreachable"
    retryable = True


class SourceUnavailable(RequestError):
    """No broker accepted the write, and none will: nothing was written."""

    code, status, title = "source_unavailable", 503, "Source unavailable"
    retryable = True


class WriteRefused(RequestError):
    """The partition's owner is blocked until an operator acts, so no read would show the write: nothing was written."""

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
    """The request's deadline passed before there was an answer."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"
    retryable = True


class UnsupportedTransferCoding(RequestError):
    """The body has a transfer coding other than chunked."""

    code, status, title = "unsupported_transfer_coding", 501, "Unsupported transfer coding"


class HttpVersionNotSupported(RequestError):
    """The request has an HTTP version other than 1.0 and 1.1."""

    code, status, title = "http_version_not_supported", 505, "HTTP version not supported"


class InternalError(RequestError):
    """A bug in Tablehouse; the log has the details under the same request id."""

    code, status, title = "internal", 500, "Internal error"

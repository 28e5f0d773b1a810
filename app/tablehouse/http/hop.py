"""What crosses with a hop: the headers of its request, and the refusals that may come back."""

from collections.abc import Mapping

from tablehouse.errors import OwnerUnreachable, RequestError, Unauthenticated
from tablehouse.http.consistency import asking_headers
from tablehouse.http.dispatch import REQUEST_ID
from tablehouse.http.forms import PROTOCOL_VERSION, VERSION
from tablehouse.http.internal import DEADLINE_MS, GENERATION, PARTITIONS, TABLE_DIGEST
from tablehouse.http.proofs import WORKER
from tablehouse.model import Consistency, HostInfo
from tablehouse.routing.error_values import from_document
from tablehouse.routing.ports import HOP_SHARE, Terms, name_of


def agreement_headers(host: HostInfo, terms: Terms, seconds: float) -> dict[str, str]:
    """Make the headers by which both workers know that they mean the same, and how long a hop may take."""
    return {
        WORKER: name_of(host),
        VERSION: PROTOCOL_VERSION,
        TABLE_DIGEST: terms.table_digest,
        PARTITIONS: str(terms.partitions),
        GENERATION: str(terms.generation),
        DEADLINE_MS: str(max(1, int(seconds * 1000))),
        REQUEST_ID: terms.request_id,
    }


def hop_headers(host: HostInfo, consistency: Consistency, terms: Terms, seconds: float) -> dict[str, str]:
    """Return the headers of a hop with a time-out in seconds.

    Only these cross: of what a client sent, a request id that has been checked and what it asks of the answer, parsed
    and written again.
    """
    return {
        **agreement_headers(host, terms, seconds),
        # The asked worker has to answer while this one still waits.
        **asking_headers(consistency, min(terms.wait, seconds * HOP_SHARE)),
    }


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> RequestError:
    """Return the error that an answer other than a success is for this worker."""
    if status == Unauthenticated.status:
        return OwnerUnreachable("it refuses this worker's proof: internal_secrets of both must have one in common")
    error = from_document(body, headers.get("Retry-After"))
    return error or OwnerUnreachable(f"it answered with status {status}, which no worker would")

"""What a caller is told when no candidate answered: whose refusal it gets, and why each one refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tablehouse.errors import NotOwner, OwnerUnreachable, PartitionUnassigned, RequestError
from tablehouse.model import Role
from tablehouse.routing.candidates import Candidate

#: How fresh the copy is that refused, as its error's details say it.
_FRESHNESS = ("position", "role", "lag_records", "staleness_ms")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate gave no answer."""

    candidate: Candidate
    error: RequestError


def worth_asking_again(candidates: Sequence[Candidate], refusals: Sequence[Refusal]) -> tuple[list[Candidate], bool]:
    """Keep those that were not asked yet and those that said "not mine", and return them with whether some are new.

    A worker says so when it has not heard of its assignment yet, as happens for some milliseconds in a rebalance.
    """
    said = {refusal.candidate.host: refusal.error for refusal in refusals}
    kept = [
        candidate
        for candidate in candidates
        if candidate.host not in said or isinstance(said[candidate.host], NotOwner)
    ]
    return kept, any(candidate.host not in said for candidate in kept)


def last_answer(refusals: Sequence[Refusal], table: str, partition: int) -> RequestError:
    """Choose what the caller gets: what the active said last, or the first candidate when there is no active."""
    where = f"partition {partition} of table {table}"
    if not refusals:
        return PartitionUnassigned(f"no worker is known to hold {where}")
    of_the_active = [refusal for refusal in refusals if refusal.candidate.role is Role.ACTIVE]
    chosen = of_the_active[-1] if of_the_active else refusals[0]
    host, error = chosen.candidate.host.worker_id, chosen.error
    if isinstance(error, OwnerUnreachable):
        return OwnerUnreachable(f"{host}, which holds {where}, could not be asked: {error.detail}")
    if isinstance(error, NotOwner):
        return PartitionUnassigned(f"{host} does not answer for {where}, and its next owner is not known yet")
    return error


def explained(
    error: RequestError, refusals: Sequence[Refusal], table: str, partition: int, generation: int
) -> RequestError:
    """Add to an error's details its partition and the workers that were asked; what the error itself says wins.

    An error that does not come from a copy that can be read gets the freshness of the last copy that can, and refused.
    """
    details: dict[str, Any] = {
        "table": table,
        "partition": partition,
        "generation": generation,
        "tried": [
            {
                "host": refusal.candidate.host.worker_id,
                "role": refusal.candidate.role.value,
                "reason": refusal.error.detail,
            }
            for refusal in refusals
        ],
        **error.details,
    }
    fresh = [refusal for refusal in refusals if "role" in refusal.error.details]
    source = next((refusal for refusal in fresh if refusal.error is error), None)
    if source is None and "role" not in error.details and fresh:
        source = fresh[-1]
        details |= {name: source.error.details[name] for name in _FRESHNESS if name in source.error.details}
    if source is not None:
        details["served_by"] = source.candidate.host.worker_id
    return type(error)(error.detail, retry_after=error.retry_after, **details)

"""What /readyz says of partitions that something keeps: by table, people's work first, and never without an end."""

from dataclasses import replace

from tablehouse.model import TaskState, TaskStatus
from tablehouse.worker.health import task_reasons
from tests.support.cluster_fakes import status


def kept(partition: int, reason: str, table: str = "planes", *, blocked: bool = False) -> TaskStatus:
    return replace(status(table, partition, TaskState.RESTORING, blocked=blocked), reason=reason)


def test_nothing_is_said_of_partitions_that_nothing_keeps() -> None:
    assert task_reasons([status(partition=number) for number in range(3)]) == []


def test_partitions_of_a_table_with_the_same_reason_share_a_line_and_blocked_ones_come_first() -> None:
    statuses = [
        kept(0, "replaying the changelog"),
        kept(2, "replaying the changelog"),
        kept(1, "the source is refused", blocked=True),
        kept(1, "replaying the changelog", "engines"),
    ]
    assert task_reasons(statuses) == [
        "partition 1 of table planes is blocked: the source is refused",
        "partitions 0, 2 of table planes are restoring: replaying the changelog",
        "partition 1 of table engines is restoring: replaying the changelog",
    ]


def test_what_is_too_much_to_name_is_counted() -> None:
    [line] = task_reasons([kept(number, "replaying the changelog") for number in range(1000)])
    assert line.startswith("partitions 0, 1, 2, 3, 4, 5, 6, 7 and 992 more of table planes are restoring")
    lines = task_reasons([kept(number, f"the source is at {number}") for number in range(1000)])
    assert len(lines) == 21
    assert lines[-1] == "and 980 more like this: GET /readyz?verbose lists all partitions"

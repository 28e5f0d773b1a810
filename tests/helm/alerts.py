"""What Prometheus sees of a group of workers, and the alerts that have to fire then: those and no other.

Series are written as promtool reads them: `0+10x60` is 0, 10, ... 600, a value a minute.
"""

from dataclasses import dataclass

_WORKERS = 'namespace="tables",job="tablehouse"'


@dataclass(frozen=True)
class Case:
    """Series by their text; the minute to look at; the alerts that fire then, as `name{label="value"}`.

    A worker is seen all the time, unless the series say otherwise.
    """

    series: dict[str, str]
    minute: int
    firing: tuple[str, ...] = ()


def _one(metric: str, values: str, worker: str = "tablehouse-0", **labels: str) -> tuple[str, str]:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'{metric}{{{_WORKERS},instance="{worker}"{more}}}', values


def _disk(values: str) -> tuple[str, str]:
    return _one("tablehouse_disk_free_bytes", values)


def _disk_size() -> tuple[str, str]:
    return _one("tablehouse_disk_size_bytes", "20000000000+0x120")


def _reads(unavailable: int, hits: int) -> dict[str, str]:
    return dict(
        [
            _one("tablehouse_read_total", f"0+{unavailable}x500", table="t", result="unavailable"),
            _one("tablehouse_read_total", f"0+{hits}x500", table="t", result="hit"),
        ]
    )


def _times(fast: int, all_of_them: int) -> dict[str, str]:
    metric = "tablehouse_read_duration_seconds"
    return dict(
        [
            _one(f"{metric}_bucket", f"0+{fast}x500", table="t", path="local", le="0.1"),
            _one(f"{metric}_count", f"0+{all_of_them}x500", table="t", path="local"),
        ]
    )


def _staleness(*seconds: int) -> dict[str, str]:
    metric = "tablehouse_staleness_seconds"
    return dict(_one(metric, f"{each}+0x500", table="t", partition=str(number)) for number, each in enumerate(seconds))


def _state(values: str, state: str, worker: str = "tablehouse-0") -> tuple[str, str]:
    return _one("tablehouse_partition_state", values, worker, table="t", partition="3", state=state)


def _remaining(values: str) -> tuple[str, str]:
    return _one("tablehouse_restore_remaining_records", values, table="t", partition="3")


def _budget(name: str, severity: str) -> str:
    return f'Tablehouse{name}{{namespace="tables",release="tablehouse",severity="{severity}"}}'


_BUILD, _ALWAYS = _one("tablehouse_build_info", "1+0x600", version="1.0.0")

#: What each case has beside its own series.
RUNNING = {_BUILD: _ALWAYS}

_NO_WORKERS = f'TablehouseNoWorkers{{{_WORKERS},severity="critical"}}'
_NO_OWNER = 'TablehousePartitionWithoutOwner{partition="3",severity="critical",table="t"}'
_TWO_OWNERS = 'TablehousePartitionWithTwoOwners{partition="3",severity="critical",table="t"}'
_STALLED = f'TablehouseRestoreStalled{{{_WORKERS},instance="tablehouse-0",partition="3",severity="warning",table="t"}}'
_DISK = f'TablehouseDiskFullIn4h{{{_WORKERS},instance="tablehouse-0",severity="critical"}}'
_ALMOST_FULL = f'TablehouseDiskAlmostFull{{{_WORKERS},instance="tablehouse-0",severity="critical"}}'
_STOPPED = 'TablehousePartitionStopped{partition="3",severity="critical",table="t"}'
_WAITING = 'TablehousePartitionsWaitForSchemas{severity="warning",table="t"}'
_LEFT_OUT = 'TablehouseMemberLeftOut{severity="warning"}'
_IN_DOUBT = 'TablehouseMissesInDoubt{severity="critical",table="t"}'


def _counted(metric: str, alert: str, **labels: str) -> dict[str, Case]:
    """Return cases of an alert on a counter: at its first event, at a later one, and no more once that is past."""
    what = metric.removeprefix("tablehouse_")
    return {
        f"{what}: a first event makes the series": Case(dict([_one(metric, "_x30 1+0x30", **labels)]), 35, (alert,)),
        f"{what}: a later event": Case(dict([_one(metric, "4+0x30 5+0x30", **labels)]), 35, (alert,)),
        f"{what}: long past": Case(dict([_one(metric, "5+0x60", **labels)]), 50),
    }


CASES: dict[str, Case] = {
    "a tenth of the reads is unavailable": Case(
        _reads(10, 90),
        400,
        (_budget("AvailabilityBudgetFast", "critical"), _budget("AvailabilityBudgetSlow", "warning")),
    ),
    "one read of a hundred is unavailable": Case(_reads(1, 99), 400, (_budget("AvailabilityBudgetSlow", "warning"),)),
    "one read of two thousand is unavailable": Case(_reads(1, 1999), 400),
    "nobody reads": Case(_reads(0, 0), 400),
    "a quarter of the reads is slow": Case(
        _times(75, 100), 400, (_budget("LatencyBudgetFast", "critical"), _budget("LatencyBudgetSlow", "warning"))
    ),
    "one read of ten is slow": Case(_times(90, 100), 400, (_budget("LatencyBudgetSlow", "warning"),)),
    "one read of fifty is slow": Case(_times(98, 100), 400),
    "a quarter of the copies is stale": Case(
        _staleness(0, 1, 2, 600),
        400,
        (_budget("FreshnessBudgetFast", "critical"), _budget("FreshnessBudgetSlow", "warning")),
    ),
    "one copy of ten is stale": Case(_staleness(600, *[1] * 9), 400, (_budget("FreshnessBudgetSlow", "warning"),)),
    "no copy is stale": Case(_staleness(0, 59, 60), 400),
    "all workers have been gone for hours": Case({_BUILD: "1+0x20 stale"}, 400, (_NO_WORKERS,)),
    "no worker is seen for a moment": Case({_BUILD: "1+0x20 stale _x3 1+0x60"}, 25),
    "one worker of two has gone": Case(dict([_one("tablehouse_build_info", "1+0x20 stale", "tablehouse-1")]), 60),
    "the only worker of a partition has gone": Case(dict([_state("1+0x20 stale", "active")]), 30, (_NO_OWNER,)),
    "a partition is suspended everywhere": Case(
        dict([_state("1+0x60", "suspended"), _state("1+0x60", "standby", "tablehouse-1")]), 30, (_NO_OWNER,)
    ),
    "a partition is restored": Case(dict([_state("1+0x60", "restoring")]), 30),
    "a partition went to another worker": Case(
        dict([_state("1+0x20 stale", "active"), _state("_x20 1+0x60", "active", "tablehouse-1")]), 30
    ),
    "a partition has been gone for over an hour": Case(dict([_state("1+0x20 stale", "active")]), 90),
    "two workers say active": Case(
        dict([_state("1+0x60", "active"), _state("1+0x60", "active", "tablehouse-1")]), 30, (_TWO_OWNERS,)
    ),
    "an active copy has a standby": Case(
        dict([_state("1+0x60", "active"), _state("1+0x60", "standby", "tablehouse-1")]), 30
    ),
    "a restore does not get on": Case(dict([_remaining("5000+0x60"), _state("1+0x60", "restoring")]), 30, (_STALLED,)),
    "a restore gets on": Case(dict([_remaining("5000-10x60"), _state("1+0x60", "restoring")]), 30),
    "a restore gets on every eight minutes": Case(
        dict([_remaining("5000+0x7 4000+0x7 3000+0x7 2000+0x7 1000+0x7"), _state("1+0x60", "restoring")]), 31
    ),
    "an active copy stays behind": Case(dict([_remaining("5+0x60"), _state("1+0x60", "active")]), 30),
    "a disk fills up": Case(dict([_disk("20000000000-100000000x120")]), 100, (_DISK,)),
    "a disk fills up slowly": Case(dict([_disk("20000000000-10000000x120")]), 100),
    "a disk fills up while a partition is restored": Case(
        dict([_disk("20000000000-100000000x120"), _state("1+0x120", "restoring")]), 100
    ),
    "a disk fills up at another worker than the one that restores": Case(
        dict([_disk("20000000000-100000000x120"), _state("1+0x120", "restoring", "tablehouse-1")]), 100, (_DISK,)
    ),
    "a disk was filled by a restore that is over": Case(
        dict(
            [
                _disk("20000000000-200000000x60 8000000000+0x60"),
                _state("1+0x60 stale", "restoring"),
                _state("_x61 1+0x120", "active"),
            ]
        ),
        75,
    ),
    "a disk goes on filling up long after a restore": Case(
        dict(
            [_disk("20000000000-100000000x180"), _state("1+0x60 stale", "restoring"), _state("_x61 1+0x120", "active")]
        ),
        150,
        (_DISK,),
    ),
    "a disk is almost full, also while a partition is restored": Case(
        dict([_disk("1900000000+0x120"), _disk_size(), _state("1+0x120", "restoring")]), 30, (_ALMOST_FULL,)
    ),
    "a disk has some space left": Case(dict([_disk("2100000000+0x120"), _disk_size()]), 30),
    "a partition waits for a schema": Case(
        dict([_one("tablehouse_partitions_waiting_for_schemas", "1+0x60", table="t")]), 30, (_WAITING,)
    ),
    "a partition waits for a schema now and then": Case(
        dict([_one("tablehouse_partitions_waiting_for_schemas", "0 1 0 1 0 0 0 1+0x3 0+0x30", table="t")]), 12
    ),
    "a changelog has too few replicas": Case(
        dict([_one("tablehouse_changelog_replicas_missing", "1+0x60", table="t")]),
        30,
        ('TablehouseChangelogReplicasMissing{severity="warning",table="t"}',),
    ),
    "a changelog has enough replicas": Case(
        dict([_one("tablehouse_changelog_replicas_missing", "0+0x60", table="t")]), 30
    ),
    "misses are in doubt": Case(dict([_one("tablehouse_misses_in_doubt", "1+0x60", table="t")]), 30, (_IN_DOUBT,)),
    "a member is left out": Case(dict([_one("tablehouse_group_members_left_out", "1+0x60")]), 30, (_LEFT_OUT,)),
    "every member is placed": Case(dict([_one("tablehouse_group_members_left_out", "0+0x60")]), 30),
    "misses are proofs": Case(dict([_one("tablehouse_misses_in_doubt", "0+0x60", table="t")]), 30),
    **_counted(
        "tablehouse_store_quarantines_total",
        'TablehouseStoreQuarantined{instance="tablehouse-0",severity="warning",table="t"}',
        table="t",
    ),
    **_counted(
        "tablehouse_records_skipped_total",
        'TablehouseRecordsSkipped{reason="null_key",severity="warning",table="t"}',
        table="t",
        reason="null_key",
    ),
    **_counted(
        "tablehouse_dead_letters_total",
        'TablehouseDeadLetters{reason="null_key",severity="warning",table="t"}',
        table="t",
        reason="null_key",
    ),
    **_counted(
        "tablehouse_dead_letter_errors_total",
        'TablehouseDeadLettersUnwritten{severity="warning",table="t"}',
        table="t",
    ),
    "a partition has stopped": Case(
        dict(
            [
                _one("tablehouse_partition_stopped", "1+0x60", table="t", partition="3"),
                _one("tablehouse_partition_blocked", "1+0x60", table="t", partition="3"),
            ]
        ),
        30,
        (_STOPPED,),
    ),
    "a partition that has stopped has an owner": Case(
        dict(
            [
                _one("tablehouse_partition_stopped", "1+0x60", table="t", partition="3"),
                _one("tablehouse_partition_blocked", "1+0x60", table="t", partition="3"),
                _state("1+0x60", "suspended"),
                _state("1+0x60", "standby", "tablehouse-1"),
            ]
        ),
        30,
        (_STOPPED,),
    ),
    "a partition is blocked": Case(
        dict(
            [
                _one("tablehouse_partition_blocked", "1+0x60", table="t", partition="3"),
                _one("tablehouse_partition_stopped", "0+0x60", table="t", partition="3"),
                _state("1+0x60", "suspended"),
            ]
        ),
        30,
        ('TablehousePartitionBlocked{partition="3",severity="critical",table="t"}',),
    ),
    "keys look like another format": Case(
        dict([_one("tablehouse_partition_suspicious_keys", "1+0x60", table="t", partition="3")]),
        1,
        ('TablehouseSuspiciousKeys{severity="warning",table="t"}',),
    ),
    "keys look right": Case(
        dict([_one("tablehouse_partition_suspicious_keys", "0+0x60", table="t", partition="3")]), 1
    ),
    "a transaction has been open for long": Case(
        dict([_one("tablehouse_partition_held_back_seconds", "0+60x60", table="t", partition="3")]),
        30,
        ('TablehouseTransactionOpen{partition="3",severity="warning",table="t"}',),
    ),
    "short transactions follow one another": Case(
        dict([_one("tablehouse_partition_held_back_seconds", "30+0x60", table="t", partition="3")]), 30
    ),
    "a suspended partition has not stopped": Case(
        dict(
            [
                _one("tablehouse_partition_stopped", "0+0x60", table="t", partition="3"),
                _one("tablehouse_partition_blocked", "0+0x60", table="t", partition="3"),
                _state("1+0x60", "suspended"),
            ]
        ),
        30,
        (_NO_OWNER,),
    ),
    "no partition has stopped": Case(
        dict([_one("tablehouse_partition_stopped", "0+0x60", table="t", partition="3")]), 30
    ),
    **_counted(
        "tablehouse_foreign_changelog_writes_total",
        'TablehouseForeignChangelogWrites{severity="warning",table="t"}',
        table="t",
    ),
    "another group has trouble": Case(
        {'tablehouse_misses_in_doubt{namespace="tables",job="other",instance="other-0",table="t"}': "1+0x60"}, 30
    ),
}

"""Tasks of a partition over a real store, for tests of what is read of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from tablehouse.formats.row_form import TEXT_AND_JSON, RowForm
from tablehouse.model import TaskState
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard, RocksTaskStore
from tablehouse.tasks.task import Task
from tablehouse.turns import Turns
from tests.support.positions import at


class HeldLease:
    """The lease of generation 3, which holds."""

    def holds(self, generation: int) -> bool:
        """Return whether it is the generation's."""
        return generation == 3

    def age(self) -> float:
        """Return less than any limit."""
        return 0.1

    async def confirm(self, generation: int) -> None:
        """Fail: a read never waits."""
        raise AssertionError(f"a read never waits for a heartbeat of generation {generation}")


@contextmanager
def opened_store(folder: Path) -> Iterator[RocksTaskStore]:
    """Open a store in a folder, and close it."""
    shard = RocksShard(folder / "shard", StoreMemory(64 << 20), Turns())
    shard.open(["t"])
    yield shard.task("t")
    shard.close()


def active_task(store: RocksTaskStore, form: RowForm = TEXT_AND_JSON) -> Task:
    """Return an active task of generation 3 over partition 2 of table `planes`."""
    fields = SimpleNamespace(
        store=store,
        state=TaskState.ACTIVE,
        readable=True,
        generation=3,
        position=at(2, 41),
        lag_records=0,
        staleness_ms=1,
        doubt=None,
        held_back_reason=None,
        rejected=0,
        reason=None,
        table="planes",
        partition=2,
        form=form,
    )
    return cast("Task", fields)

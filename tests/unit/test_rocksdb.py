"""The store on disk: crashes, damage, locks, handles and memory."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.stores.rocksdb import RocksShard, StoreMemory
from app.stores.store import StoreCorrupt, StoreError

BUDGET = 64 << 20

_WRITER = """
import asyncio, sys
from pathlib import Path
from app.stores.rocksdb import RocksShard, StoreMemory

async def main():
    shard = RocksShard(Path(sys.argv[1]), StoreMemory(64 << 20))
    shard.open(["one", "two"])
    for number in range(1, 1_000_000):
        for name in ("one", "two"):
            rows = [(b"\\x01%03d" % key, b"%d" % number) for key in range(500)]
            await shard.task(name).write(rows, b"%d" % number)
        if number % 7 == 0:
            shard.task("one").flush()
        if number % 11 == 0:
            shard.task("two").flush()
        print(number, flush=True)
        if number == int(sys.argv[2]):
            if sys.argv[3] == "closing":
                shard.flush()
            print("wait", flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


def opened(path: Path, *names: str) -> RocksShard:
    shard = RocksShard(path, StoreMemory(BUDGET))
    shard.open(names)
    return shard


@pytest.mark.parametrize(("writes", "when"), [(5, "writing"), (12, "writing"), (23, "closing")])
def test_sigkill_leaves_a_consistent_prefix_of_every_family(tmp_path: Path, writes: int, when: str) -> None:
    path = tmp_path / "shard"
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(writes), when], stdout=subprocess.PIPE)
    assert child.stdout is not None
    while child.stdout.readline() != b"wait\n":
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    shard = opened(path, "one", "two")
    for name in ("one", "two"):
        store = shard.task(name)
        reached = int(store.checkpoint() or b"0")
        rows = {int(value) for _, value in store.scan(b"", 1000)}
        # Rows may be ahead of the checkpoint, of which replaying makes the same rows again, and never behind it.
        assert rows <= {reached, reached + 1}
        if when == "closing":
            assert reached == writes
    shard.close()


async def test_a_closed_shard_opens_again_in_the_same_process_with_all_it_had(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "t")
    await shard.task("t").write([(b"\x01a", b"1")], b"c")
    shard.close()
    again = opened(tmp_path / "shard", "t", "new")
    assert again.task("t").get(b"\x01a") == b"1"
    assert again.task("new").checkpoint() is None
    again.close()


async def test_recreating_a_family_leaves_the_others(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "a", "b")
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01k", b"v")], b"c")
    shard.recreate("a")
    assert shard.task("a").checkpoint() is None
    assert shard.task("b").get(b"\x01k") == b"v"
    shard.close()


def test_a_folder_that_is_open_elsewhere_is_no_damage(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "t")
    with pytest.raises(StoreError) as raised:
        opened(tmp_path / "shard", "t")
    assert not isinstance(raised.value, StoreCorrupt)
    assert "LOCK" in str(raised.value)
    shard.close()


async def filled(path: Path) -> None:
    shard = opened(path, "t")
    rows = [(b"\x01%06d" % number, b"%d" % number * 20) for number in range(20_000)]
    await shard.task("t").write(rows, b"checkpoint")
    shard.close()


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.9])
async def test_a_cut_manifest_is_damage_or_an_older_whole_state(tmp_path: Path, kept: float) -> None:
    await filled(tmp_path / "shard")
    manifest = next((tmp_path / "shard").glob("MANIFEST-*"))
    manifest.write_bytes(manifest.read_bytes()[: int(manifest.stat().st_size * kept)])
    try:
        shard = opened(tmp_path / "shard", "t")
    except StoreCorrupt:
        return
    store = shard.task("t")
    assert (store.checkpoint(), len(store.scan(b"", 30_000))) in {(None, 0), (b"checkpoint", 20_000)}
    shard.close()


async def test_a_deleted_current_file_is_damage_and_the_destroyed_folder_opens_empty(tmp_path: Path) -> None:
    await filled(tmp_path / "shard")
    (tmp_path / "shard" / "CURRENT").unlink()
    damaged = RocksShard(tmp_path / "shard", StoreMemory(BUDGET))
    with pytest.raises(StoreCorrupt):
        damaged.open(["t"])
    damaged.destroy()
    damaged.open(["t"])
    assert damaged.task("t").checkpoint() is None
    damaged.close()


async def test_a_deleted_table_file_is_damage(tmp_path: Path) -> None:
    await filled(tmp_path / "shard")
    for file in (tmp_path / "shard").glob("*.sst"):
        file.unlink()
    with pytest.raises(StoreCorrupt):
        opened(tmp_path / "shard", "t")


async def test_a_flipped_byte_is_found_by_who_reads_it(tmp_path: Path) -> None:
    await filled(tmp_path / "shard")
    largest = max((tmp_path / "shard").glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 3] ^= 0xFF
    largest.write_bytes(content)
    shard = opened(tmp_path / "shard", "t")
    store = shard.task("t")

    def read_all() -> None:
        for number in range(20_000):
            assert store.get(b"\x01%06d" % number) == b"%d" % number * 20

    with pytest.raises(StoreCorrupt):
        read_all()
    shard.close()


def test_many_families_share_one_memory(tmp_path: Path) -> None:
    memory = StoreMemory(BUDGET)
    shards = [RocksShard(tmp_path / f"shard-{number}", memory) for number in range(8)]
    names = [f"t{number}" for number in range(4)]
    for shard in shards:
        shard.open(names)

    async def write() -> None:
        for number in range(40):
            for shard in shards:
                rows = [(b"\x01%05d" % (number * 100 + key), b"x" * 500) for key in range(100)]
                await asyncio.gather(*(shard.task(name).write(rows, b"c") for name in names))

    asyncio.run(write())
    # 64 MB of rows, in a third of three quarters of the budget; what a flush has under way comes on top of it.
    assert memory.write_buffer_usage() < BUDGET // 2, memory.write_buffer_usage()
    for shard in shards:
        shard.close()

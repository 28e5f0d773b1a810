"""The store on disk: crashes, damage, locks, handles and memory."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from rocksdict import DbClosedError, Rdict

from tablehouse.stores.failures import to_store_error
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.stores.row_count import COUNTED_ROWS
from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError
from tablehouse.turns import Turns
from tests.support.limits import file_size_limit, free_file_handles

BUDGET = 64 << 20

_WRITER = """
import asyncio, sys
from pathlib import Path
from tablehouse.stores.memory import StoreMemory
from tablehouse.stores.rocksdb import RocksShard
from tablehouse.turns import Turns

async def main():
    shard = RocksShard(Path(sys.argv[1]), StoreMemory(64 << 20), Turns())
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
    shard = RocksShard(path, StoreMemory(BUDGET), Turns())
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
        rows = {int(value) for _, value in store.scan(limit=1000)}
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


def test_a_file_in_the_way_of_the_folder_is_named_and_is_no_damage(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path / "file" / "shard"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StoreError, match=rf"opening {path}: .*{tmp_path / 'file'}") as raised:
            opened(path, "t")
        assert type(raised.value) is StoreError
    assert (tmp_path / "file").read_text() == "mine"


async def test_recreating_a_family_leaves_the_others(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "a", "b")
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01k", b"v")], b"c")
    shard.recreate("a")
    assert shard.task("a").checkpoint() is None
    assert shard.task("b").get(b"\x01k") == b"v"
    shard.close()


async def test_a_family_is_added_beside_those_in_use_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "a")
    await shard.task("a").write([(b"\x01k", b"v")], b"c")
    used = shard.families["a"]
    with pytest.raises(StoreClosed):
        shard.task("b").checkpoint()
    shard.add(["a", "b"])
    assert shard.families["a"] is used
    assert shard.task("b").checkpoint() is None
    await shard.task("b").write([(b"\x01k", b"w")], b"d")
    shard.close()
    with pytest.raises(StoreClosed):
        shard.add(["c"])
    # One that was not asked for is kept, and is there at once when it is.
    again = opened(tmp_path / "shard", "a")
    again.add(["b"])
    assert (again.task("a").get(b"\x01k"), again.task("b").get(b"\x01k")) == (b"v", b"w")
    again.close()


def manifest_size(path: Path) -> int:
    return max(file.stat().st_size for file in path.glob("MANIFEST-*"))


class FullDisk:
    """A shard's database of which one call meets a full disk, with `room` bytes left to note families in the MANIFEST.

    rocksdict's own class cannot be patched.
    """

    def __init__(self, shard: RocksShard, failing: str, room: int) -> None:
        self._shard, self._database, self._failing, self._room = shard, shard.database, failing, room

    def __getattr__(self, name: str) -> object:
        call = getattr(self._database, name)

        def failing(*arguments: object) -> object:
            with file_size_limit(manifest_size(self._shard.path) + self._room):
                return call(*arguments)

        return failing if name == self._failing else call


async def with_two_families(path: Path) -> RocksShard:
    shard = opened(path, "a", "b")
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01k", b"v")], b"c")
    shard.flush()
    return shard


async def check_recreated(shard: RocksShard) -> None:
    assert (shard.task("a").checkpoint(), shard.task("b").checkpoint()) == (None, b"c")
    await shard.task("a").write([(b"\x01new", b"v")], b"anew")
    shard.close()
    for _ in range(2):
        again = opened(shard.path, "a", "b")
        assert again.task("a").scan(limit=10) == [(b"\x01new", b"v")]
        assert (again.task("a").checkpoint(), again.task("b").checkpoint()) == (b"anew", b"c")
        # Whatever the failures left behind is dropped by opening.
        assert len(Rdict.list_cf(str(shard.path))) == len({"default", "a", "b"})
        again.close()


# RocksDB notes a family in its MANIFEST first, and then writes an OPTIONS file of 17 KB.
full_disks = pytest.mark.parametrize("room", [0, 4096], ids=["not noted", "noted without the options"])


@full_disks
async def test_a_creation_that_failed_half_way_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    shard = await with_two_families(tmp_path / "shard")
    with monkeypatch.context() as patched:
        patched.setattr(shard, "database", FullDisk(shard, "create_column_family", room))
        for _ in range(2):
            with pytest.raises(StoreError, match=rf"recreating a in {shard.path}: .*File too large") as raised:
                shard.recreate("a")
            assert type(raised.value) is StoreError
            with pytest.raises(StoreClosed):
                shard.task("a").get(b"\x01k")
    shard.recreate("a")
    await check_recreated(shard)


@full_disks
async def test_a_family_that_cannot_be_dropped_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    shard = await with_two_families(tmp_path / "shard")
    with monkeypatch.context() as patched:
        patched.setattr(shard, "database", FullDisk(shard, "drop_column_family", room))
        shard.recreate("a")
    await check_recreated(shard)


@pytest.mark.parametrize("topic", ["BLOCKS", "t"])
async def test_damage_is_told_by_what_rocksdb_says_and_not_by_the_name_of_the_topic(tmp_path: Path, topic: str) -> None:
    path = tmp_path / f"{topic}-0"
    await filled(path)
    next(path.glob("MANIFEST-*")).write_bytes(b"")
    with pytest.raises(StoreCorrupt):
        opened(path, "t")


async def test_what_cannot_be_flushed_is_no_damage_and_closes_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "checksum-x-0"
    shard = opened(path, "a", "b")
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01%04d" % key, os.urandom(100)) for key in range(500)], b"c")
    with file_size_limit(manifest_size(path) + 1024):
        with pytest.raises(StoreError, match=r"flushing . in .*File too large") as flushing:
            shard.flush()
        with pytest.raises(StoreError, match=rf"closing {path}: .*File too large") as closing:
            shard.close()
    assert type(flushing.value) is type(closing.value) is StoreError
    with pytest.raises(StoreClosed):
        shard.task("a").checkpoint()

    # Nothing has kept it open.
    again = opened(path, "a", "b")
    assert again.task("a").checkpoint() in {None, b"c"}
    again.close()


async def test_too_few_file_handles_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    await filled(path)
    shard = RocksShard(path, StoreMemory(BUDGET), Turns())

    def refused(handles: int) -> StoreError | None:
        try:
            with free_file_handles(handles):
                shard.open(["t"])
        except StoreError as error:
            return error
        return None

    refusals: list[StoreError] = []
    while (error := refused(len(refusals))) is not None:
        refusals.append(error)
    assert len(refusals) > 3
    for error in refusals:
        assert type(error) is StoreError, error
        assert "Too many open files" in str(error)
    assert shard.task("t").checkpoint() == b"checkpoint"
    shard.close()


_PATH = Path("/IO error: No such file or directory/Corruption: checksum/LOCK-0")


# As RocksDB words them: a status, another one inside it, and in them the path.
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in {}/000008.sst", StoreCorrupt),
        ("Corruption: Sst file size mismatch: {}/000008.sst. Expected 313727, actual size 100", StoreCorrupt),
        ("Corruption: CURRENT file does not end with newline", StoreCorrupt),
        ("Corruption: Corruption: IO error: No such file or directory: While open: {}/8.sst: ", StoreCorrupt),
        ("IO error: No such file or directory: While opening a file: {}/MANIFEST-5: ", StoreCorrupt),
        ("IO error: While pread offset 313674 len 53: {}/000008.sst: Is a directory", StoreCorrupt),
        ("IO error: While open a file for random read: {}/000008.sst: Permission denied", StoreError),
        ("Corruption: Corruption: IO error: While open a file: {}/000008.sst: Permission denied", StoreError),
        ("IO error: While open a file for appending: {}/LOG: Read-only file system", StoreError),
        ("IO error: No space left on device: While appending to file: {}/10.sst: No space left on device", StoreError),
        ("IO error: Unable to persist options.: IO error: No space left on device: {}/OPTIONS-7.dbtmp", StoreError),
        ("IO error: While pread offset 0 len 53: {}/000008.sst: Input/output error", StoreError),
        ("IO error: While lock file: {}/LOCK: Resource temporarily unavailable", StoreError),
        ("IO error: lock hold by current process, acquire time 1: {}/LOCK: No locks available", StoreError),
        (
            "Invalid argument: Found options incompatible with filesystem: IO error: {}/CURRENT: Too many open",
            StoreError,
        ),
        ("Invalid argument: Column family not found", StoreError),
        ("Result incomplete: Write stall", StoreError),
        ("No space left on device (os error 28)", StoreError),
    ],
)
def test_only_what_is_wrong_with_rocksdbs_own_files_is_damage(text: str, kind: type[StoreError]) -> None:
    error = to_store_error(Exception(text.format(_PATH)), f"opening {_PATH}", _PATH)
    assert type(error) is kind
    assert str(error) == f"opening {_PATH}: {text.format(_PATH)}"


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
    assert (store.checkpoint(), len(store.scan(limit=30_000))) in {(None, 0), (b"checkpoint", 20_000)}
    shard.close()


async def test_a_deleted_current_file_is_damage_and_the_destroyed_folder_opens_empty(tmp_path: Path) -> None:
    await filled(tmp_path / "shard")
    (tmp_path / "shard" / "CURRENT").unlink()
    damaged = RocksShard(tmp_path / "shard", StoreMemory(BUDGET), Turns())
    with pytest.raises(StoreCorrupt):
        damaged.open(["t"])
    damaged.destroy()
    damaged.open(["t"])
    assert damaged.task("t").checkpoint() is None
    damaged.close()


async def test_a_folder_that_cannot_be_deleted_is_named_and_one_that_is_gone_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    await filled(path)
    shard = RocksShard(path, StoreMemory(BUDGET), Turns())
    with free_file_handles(0), pytest.raises(StoreError, match=rf"deleting {path}: Too many open files"):
        shard.destroy()
    assert path.exists()
    shard.destroy()
    assert not path.exists()
    shard.destroy()

    path.write_text("mine")
    with pytest.raises(StoreError, match=rf"deleting {path}: Not a directory"):
        shard.destroy()


async def test_a_file_that_cannot_be_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shard"
    await filled(path)
    unlink = os.unlink

    def refusing(name: Path) -> None:
        if name.name == "CURRENT":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        unlink(name)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(StoreError, match=rf"deleting {path}: Permission denied \(.*CURRENT\)"):
        RocksShard(path, StoreMemory(BUDGET), Turns()).destroy()


async def test_a_store_that_cannot_be_flushed_can_be_destroyed(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    shard = opened(path, "a", "b")
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01%04d" % key, os.urandom(100)) for key in range(500)], b"c")
    with file_size_limit(manifest_size(path) + 1024):
        shard.destroy()
    assert not path.exists()
    shard.open(["a"])
    assert shard.task("a").checkpoint() is None
    shard.close()


async def test_the_size_is_that_of_the_files_there_are_when_one_is_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shard"
    shard = RocksShard(path, StoreMemory(BUDGET), Turns())
    assert shard.size() == 0
    path.mkdir()
    for number in range(3):
        (path / f"{number}.sst").write_bytes(b"x" * 100)
    listing = os.scandir

    def listed_then_deleted(folder: Path) -> nullcontext[Iterator[os.DirEntry[str]]]:
        with listing(folder) as entries:
            listed = list(entries)
        (path / "1.sst").unlink()
        return nullcontext(iter(listed))

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", listed_then_deleted)
        assert shard.size() == 200
    with free_file_handles(0), pytest.raises(StoreError, match=rf"measuring {path}: Too many open files"):
        shard.size()


async def test_a_family_that_a_thread_has_just_closed_has_no_rows(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "t")
    await shard.task("t").write([(b"\x01%03d" % key, b"v") for key in range(100)], b"c")
    assert shard.task("t").rows_estimate() == 100
    shard.families["t"].close()
    assert shard.task("t").rows_estimate() == 0
    with pytest.raises(StoreClosed):
        shard.task("t").get(b"\x01000")


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


async def test_what_damage_has_stopped_goes_on_once_opened_again_whoever_still_has_the_errors(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    shard = opened(path, "a", "b")
    for _ in range(2):
        await shard.task("a").write([(b"\x01%04d" % key, os.urandom(100)) for key in range(1_000)], b"c")
        shard.flush()
    table = min(path.glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[1_000] ^= 0xFF
    table.write_bytes(content)
    # RocksDB writes nothing at all any more when it meets damage in the background.
    shard.families["a"].compact_range(None, None)
    with pytest.raises(StoreCorrupt) as writing:
        await shard.task("b").write([(b"\x01k", b"v")], b"c")
    shard.recreate("a")
    with pytest.raises(StoreCorrupt) as again:
        await shard.task("a").write([(b"\x01k", b"v")], b"c")
    with pytest.raises(StoreCorrupt) as closing:
        shard.close()

    shard.open(["a", "b"])
    assert shard.task("a").checkpoint() is None
    for name in ("a", "b"):
        await shard.task(name).write([(b"\x01k", b"v")], b"anew")
    shard.close()
    for error in (writing, again, closing):
        assert "block checksum mismatch" in str(error.value)


async def test_a_family_found_damaged_and_replaced_does_not_keep_the_store_open(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    shard = await with_two_families(path)
    family = shard.families["a"]
    shard.recreate("a")
    shard.close()
    opened(path, "a", "b").close()
    with pytest.raises(DbClosedError):
        family.get(b"\x01k")


def test_many_families_share_one_memory(tmp_path: Path) -> None:
    memory = StoreMemory(BUDGET)
    shards = [RocksShard(tmp_path / f"shard-{number}", memory, Turns()) for number in range(8)]
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


async def test_rows_that_are_too_many_to_count_are_estimated_until_few_are_left(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "t")
    store = shard.task("t")
    many = 2 * COUNTED_ROWS
    await store.write([(b"\x01%05d" % key, b"v") for key in range(many)], b"c")
    assert store.count_rows()
    assert store.rows_estimate() == many
    await store.write([(b"\x01another", b"v")], b"c")
    assert not store.count_rows()

    # As many deleted rows would take long to pass over.
    await store.write([(b"\x01%05d" % key, None) for key in range(many - 5)], b"c")
    store.count_rows()
    shard.flush()
    shard.families["t"].compact_range(None, None)
    await store.write([(b"\x01another", None)], b"c")
    assert store.count_rows()
    assert store.rows_estimate() == 5
    shard.close()
    assert not store.count_rows()


async def test_many_bytes_of_large_rows_are_not_read_to_count_them(tmp_path: Path) -> None:
    shard = opened(tmp_path / "shard", "t")
    store = shard.task("t")
    for number in range(5):
        await store.write([(b"\x01%d" % number, os.urandom(8 << 20))], b"c")
        await asyncio.to_thread(shard.flush)
    store.count_rows()
    # As RocksDB estimates it, which counts the checkpoint in each file.
    assert store.rows_estimate() > 5
    shard.close()

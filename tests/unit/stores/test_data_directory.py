import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tablehouse.errors import DataDirectoryError
from tablehouse.model import ShardId
from tablehouse.stores.data_directory import DataDirectory
from tablehouse.telemetry import Metrics
from tests.support.limits import file_size_limit


def test_the_worker_id_stays_and_the_incarnation_goes_up(tmp_path: Path) -> None:
    first = DataDirectory.acquire(tmp_path / "data")
    first.release()
    second = DataDirectory.acquire(tmp_path / "data")
    assert second.worker_id == first.worker_id
    assert (first.incarnation, second.incarnation) == (1, 2)
    second.release()


def test_two_directories_are_two_workers(tmp_path: Path) -> None:
    one, two = DataDirectory.acquire(tmp_path / "one"), DataDirectory.acquire(tmp_path / "two")
    assert one.worker_id != two.worker_id
    one.release()
    two.release()


def test_a_directory_in_use_is_refused_with_the_process_that_has_it(tmp_path: Path) -> None:
    held = DataDirectory.acquire(tmp_path)
    with pytest.raises(DataDirectoryError, match=rf"in use by process {os.getpid()}"):
        DataDirectory.acquire(tmp_path)
    held.release()


def test_a_worker_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "worker.json").write_text("{")
    with pytest.raises(DataDirectoryError, match=r"worker\.json cannot be read"):
        DataDirectory.acquire(tmp_path)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        DataDirectory.acquire(tmp_path / "file")


def test_positions_are_there_for_the_next_process(tmp_path: Path) -> None:
    directory = DataDirectory.acquire(tmp_path)
    assert directory.positions() == {}
    directory.save_positions({"t": {0: 5, 3: -1}})
    directory.release()
    again = DataDirectory.acquire(tmp_path)
    assert again.positions() == {"t": {0: 5, 3: -1}}
    assert again.shard(ShardId("t", 3)) == tmp_path / "shards" / "t-3"
    again.release()


_HOLDER = """
import sys
from pathlib import Path
from tablehouse.stores.data_directory import DataDirectory

held = DataDirectory.acquire(Path(sys.argv[1]))
print(held.worker_id, flush=True)
sys.stdin.read()
"""


def test_the_holder_named_is_the_other_process_and_its_death_frees_the_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        worker_id = holder.stdout.readline().decode().strip()
        with pytest.raises(DataDirectoryError, match=rf"in use by process {holder.pid};"):
            DataDirectory.acquire(tmp_path)
        holder.kill()
    freed = DataDirectory.acquire(tmp_path)
    assert (freed.worker_id, freed.incarnation) == (worker_id, 2)
    with pytest.raises(DataDirectoryError, match=rf"in use by process {os.getpid()};"):
        DataDirectory.acquire(tmp_path)
    freed.release()


def test_a_refused_start_neither_keeps_the_directory_nor_counts_as_an_incarnation(tmp_path: Path) -> None:
    DataDirectory.acquire(tmp_path).release()
    whole = (tmp_path / "worker.json").read_bytes()
    (tmp_path / "worker.json").write_bytes(whole[:-3])
    with pytest.raises(DataDirectoryError):
        DataDirectory.acquire(tmp_path)
    (tmp_path / "worker.json").write_bytes(whole)
    mended = DataDirectory.acquire(tmp_path)
    assert mended.incarnation == 2
    mended.release()


@pytest.mark.parametrize("content", ["{", "[]", '{"t": {"x": 1}}', '{"t": 5}'])
def test_positions_that_cannot_be_read_are_none_and_are_written_anew(tmp_path: Path, content: str) -> None:
    directory = DataDirectory.acquire(tmp_path)
    (tmp_path / "positions.json").write_text(content)
    assert directory.positions() == {}
    directory.save_positions({"t": {1: 2}})
    assert directory.positions() == {"t": {1: 2}}
    directory.release()


def test_a_disk_that_takes_no_more_is_named_and_neither_keeps_the_directory_nor_counts(tmp_path: Path) -> None:
    DataDirectory.acquire(tmp_path).release()
    for size in (0, 20):
        with (
            file_size_limit(size),
            pytest.raises(DataDirectoryError, match=rf"{tmp_path} cannot be used: File too large"),
        ):
            DataDirectory.acquire(tmp_path)
    freed = DataDirectory.acquire(tmp_path)
    assert freed.incarnation == 2
    freed.release()


def test_the_identity_is_synced_to_the_disk_and_the_hint_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink().stem))
    directory = DataDirectory.acquire(tmp_path)
    directory.save_positions({"t": {0: 5}})
    assert synced == ["worker"]
    assert directory.positions() == {"t": {0: 5}}
    directory.release()


def test_positions_saved_by_several_threads_at_once_are_whole(tmp_path: Path) -> None:
    directory = DataDirectory.acquire(tmp_path)
    written = [{f"topic-{number}": dict.fromkeys(range(50 * number), number)} for number in range(1, 9)]

    def save(positions: dict[str, dict[int, int]]) -> None:
        for _ in range(25):
            directory.save_positions(positions)
            assert directory.positions() in written

    with ThreadPoolExecutor(len(written)) as threads:
        for saved in [threads.submit(save, positions) for positions in written]:
            saved.result()
    directory.release()


def test_what_is_free_is_a_part_of_the_file_system(tmp_path: Path) -> None:
    directory = DataDirectory.acquire(tmp_path)
    described, metrics = os.statvfs(tmp_path), Metrics("0")
    directory.measure(metrics)
    size = metrics.registry.get_sample_value("tablehouse_disk_size_bytes") or 0
    assert size == described.f_blocks * described.f_frsize
    assert 0 < directory.free() <= size
    assert 0 < (metrics.registry.get_sample_value("tablehouse_disk_free_bytes") or 0) <= size
    directory.release()


def modes(path: Path) -> dict[str, int]:
    """Return the mode of each file and folder."""
    return {str(each.relative_to(path.parent)): stat.S_IMODE(each.lstat().st_mode) for each in [path, *path.rglob("*")]}


def test_a_directory_that_others_may_read_is_closed_to_them_with_all_that_a_worker_has_made(tmp_path: Path) -> None:
    path = tmp_path / "data"
    shard = path / "shards" / "t-0"
    shard.mkdir(parents=True)
    for file in (shard / "000008.sst", path / "schemas.json", path / "positions.json", path / "not-ours"):
        file.write_text("{}")
        file.chmod(0o664)
    for folder in (path, path / "shards", shard):
        folder.chmod(0o775)
    DataDirectory.acquire(path).release()
    found = modes(path)
    assert found.pop("data/not-ours") == 0o664
    assert found == {
        "data": 0o700,
        "data/LOCK": 0o600,
        "data/worker.json": 0o600,
        "data/positions.json": 0o600,
        "data/schemas.json": 0o600,
        "data/shards": 0o700,
        "data/shards/t-0": 0o700,
        "data/shards/t-0/000008.sst": 0o600,
    }


def test_the_root_of_a_volume_that_was_given_to_a_group_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data"
    (path / "shards").mkdir(parents=True)
    (path / "shards").chmod(0o2775)
    path.chmod(0o2775)
    DataDirectory.acquire(path).release()
    found = modes(path)
    assert (found["data"], found["data/shards"], found["data/worker.json"]) == (0o2775, 0o2700, 0o600)


def test_files_whose_modes_cannot_be_changed_are_told_of_and_keep_no_worker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)

    def refusing(self: Path, mode: int) -> None:
        del mode
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "chmod", refusing)
    with capture_logs() as logs:
        DataDirectory.acquire(path).release()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("other users may read the data directory", "warning")

import os
from pathlib import Path

import pytest

from app.errors import DataDirectoryError
from app.model import TopicPartition
from app.stores.data_directory import DataDirectory


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
    assert again.shard(TopicPartition("t", 3)) == tmp_path / "shards" / "t-3"
    again.release()

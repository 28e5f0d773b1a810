from pathlib import Path

import pytest

from tablehouse.demo.folder import demo_folder
from tablehouse.errors import DataDirectoryError


def test_the_folder_is_emptied_for_the_embedded_broker(tmp_path: Path) -> None:
    path = tmp_path / ".demo"
    with demo_folder(path, wipe=True):
        (path / "kafka").mkdir()
        (path / "worker-1.log").write_text("old")

    with demo_folder(path, wipe=True):
        assert [entry.name for entry in path.iterdir()] == ["lock"]


def test_the_folder_is_kept_for_a_broker_that_keeps_its_data(tmp_path: Path) -> None:
    path = tmp_path / ".demo"
    with demo_folder(path, wipe=False):
        (path / "worker-1").mkdir()

    with demo_folder(path, wipe=False):
        assert (path / "worker-1").is_dir()


def test_a_second_demo_does_not_empty_the_folder_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / ".demo"
    with demo_folder(path, wipe=True):
        (path / "worker-1").mkdir()
        with pytest.raises(DataDirectoryError, match="in use by another demo"), demo_folder(path, wipe=True):
            pass
        assert (path / "worker-1").is_dir()


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".demo"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")

    with (
        pytest.raises(DataDirectoryError, match="not the demo's folder"),
        demo_folder(path, wipe=True),
    ):
        pass
    assert (path / "thesis.tex").read_text() == "years of work"

"""What harmed parts need of their own."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tablehouse.testing.kafka import EmbeddedKafka
from tests.chaos.paths import TAKEN, all_run, listed, never_taken
from tests.chaos.scene import WHOLE

#: Seconds for one test of the whole, in which faults are as long as they are meant.
_WHOLE_TIMEOUT = 1800

#: Bytes of the small disk: room for two shards, and for more than a worker wants to see free before it goes on.
_DISK = 192 << 20

#: Whether tests were left out by what pytest was told, as by -k.
_LEFT_OUT = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the tests of the whole their time, and leave those that only it has out of every other run."""
    if WHOLE:
        for item in items:
            item.add_marker(pytest.mark.timeout(_WHOLE_TIMEOUT))
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Take note that not everything is run."""
    for item in items:
        item.config.stash[_LEFT_OUT] = True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how often all scenes together went each path of the protocol."""
    if TAKEN:
        terminalreporter.section("paths of the protocol, in all scenes")
        terminalreporter.line(listed(TAKEN))


@pytest.fixture(scope="session", autouse=True)
def every_path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the whole of the faults fail, where it was run to its end, when a path was never taken."""
    yield
    session, config = request.session, request.config
    complete = all_run({item.path for item in session.items}, config.args, left_out=config.stash.get(_LEFT_OUT, False))
    if WHOLE and complete and not session.testsfailed:
        missing = never_taken(TAKEN)
        assert not missing, f"never happened in any scene: {', '.join(missing)}"


@pytest.fixture
def own_kafka(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[EmbeddedKafka]:
    """Run a broker that a test may harm, of which the test's own clients complain a hundred times a second."""
    caplog.set_level(logging.CRITICAL, logger="aiokafka")
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that can really be full; it takes root to do so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        # Workers that end later than this still have files open there.
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)

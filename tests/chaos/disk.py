"""Damage to what a worker keeps on its disk, and a disk that is full."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

_STEP = 1 << 20


def flip_bytes(data_dir: Path, chosen: random.Random) -> None:
    """Flip one byte of each table file, somewhere in its first half, where its rows are."""
    files = sorted(data_dir.glob("shards/*/**/*.sst"))
    assert files, f"{data_dir} has no table files"
    for file in files:
        content = bytearray(file.read_bytes())
        content[chosen.randrange(max(1, len(content) // 2))] ^= 0xFF
        file.write_bytes(content)


def cut_manifests(data_dir: Path, chosen: random.Random) -> None:
    """Cut each MANIFEST somewhere."""
    files = sorted(data_dir.glob("shards/*/**/MANIFEST-*"))
    assert files, f"{data_dir} has no MANIFEST"
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: chosen.randrange(1, len(content))])


def delete(data_dir: Path, _: random.Random) -> None:
    """Delete everything, the worker's identity included."""
    shutil.rmtree(data_dir)


#: By their names.
DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a flipped byte in every SST": flip_bytes,
    "a cut MANIFEST in every store": cut_manifests,
    "a deleted data directory": delete,
}


def fill(folder: Path) -> Path:
    """Write a file that takes all the space of a folder's file system, and return it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(_STEP)):
            pass
    assert shutil.disk_usage(folder).free < _STEP
    return ballast

"""Damage to what a worker keeps on its disk, and a disk that is full."""

import contextlib
import random
import shutil
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


def behead_manifests(data_dir: Path, _: random.Random) -> None:
    """Cut each MANIFEST in its first record, so that it says nothing at all."""
    for file in _manifests(data_dir):
        file.write_bytes(file.read_bytes()[:16])


def cut_manifests(data_dir: Path, chosen: random.Random) -> None:
    """Cut each MANIFEST somewhere, which may leave it a whole one as it was earlier."""
    for file in _manifests(data_dir):
        content = file.read_bytes()
        file.write_bytes(content[: chosen.randrange(1, len(content))])


def _manifests(data_dir: Path) -> list[Path]:
    files = sorted(data_dir.glob("shards/*/**/MANIFEST-*"))
    assert files, f"{data_dir} has no MANIFEST"
    return files


def delete(data_dir: Path, _: random.Random) -> None:
    """Delete everything, the worker's identity included."""
    shutil.rmtree(data_dir)


def fill(folder: Path) -> Path:
    """Write a file that takes all the space of a folder's file system, and return it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(_STEP)):
            pass
    assert shutil.disk_usage(folder).free < _STEP
    return ballast

"""Which files of a folder a run is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: What a lock run writes beside the locked files.
OWN_FILES = ("lock.json", "report.html")
OWN_SUFFIXES = (".mlkey",)


def list_files(source: Path) -> list[Path]:
    """List the files under a folder, relative to it, in a fixed order; a file is its own folder.

    Left out: names that begin with a dot, ``DICOMDIR`` (it describes a medium, it is no image),
    key files, ``lock.json`` and ``report.html`` at the top. Symbolic links are not followed out.

    Raises
    ------
    UsageError
        There is no such file or folder, or it holds nothing to work on.
    """
    if source.is_file():
        return [source.relative_to(source.parent)]
    if not source.is_dir():
        raise UsageError(f"{source}: no such file or folder")
    found = [
        path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    listed = [path for path in found if _is_work(path)]
    if not listed:
        raise UsageError(f"{source}: holds no files to work on")
    return listed


def _is_work(path: Path) -> bool:
    if any(part.startswith(".") for part in path.parts) or path.name == "DICOMDIR":
        return False
    return path.suffix not in OWN_SUFFIXES and str(path) not in OWN_FILES


def folder_of(source: Path) -> Path:
    """Return the folder that listed names are relative to."""
    return source.parent if source.is_file() else source


def check_apart(source: Path, destination: Path) -> None:
    """Refuse a destination inside its source, or the other way round.

    The folder of a source that is one file may hold the destination, but not be it.

    Raises
    ------
    DestinationError
        They overlap.
    """
    src, dst = folder_of(source).resolve(), destination.resolve()
    nested = src in dst.parents or dst in src.parents
    if dst == src or (nested and not source.is_file()):
        raise DestinationError(
            f"{destination}: source and destination lie inside each other",
            "choose a folder outside the source",
        )

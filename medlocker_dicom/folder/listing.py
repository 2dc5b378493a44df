"""Which files of a folder a run is about."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from medlocker_dicom.errors import DestinationError, SourceError, UsageError

#: What a lock run writes beside the locked files, and the folder of its key files.
OWN_FILES = ("lock.json", "report.html")
OWN_SUFFIXES = (".mlkey", ".mlstatus", ".mlpacket", ".mlreceipt")
KEYS = "keys"


def list_files(source: Path) -> list[Path]:
    """List what lies under a folder, relative to it, in a fixed order; a file is its own folder.

    Symbolic links, devices and the like, and folders that cannot be read are listed too, for
    `plain_file` to refuse: nothing is passed over in silence. Left out: names that begin with
    a dot, ``DICOMDIR`` (it describes a medium, it is no image), files of keys, ``lock.json`` and
    ``report.html`` at the top.

    Raises
    ------
    UsageError
        There is no such file or folder, it cannot be read, or holds nothing to work on.
    """
    if source.is_file():
        return [source.relative_to(source.parent)]
    if not source.is_dir():
        raise UsageError(f"{source}: no such file or folder")
    listed = sorted(path for path in _walk(source) if _is_work(path))
    if not listed:
        raise UsageError(f"{source}: holds no files to work on")
    return listed


def _walk(source: Path) -> list[Path]:
    """Find everything but folders; folders too that are links or cannot be read."""
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        found.append(Path(error.filename))

    for name, folders, files in os.walk(source, onerror=unreadable):
        folder = Path(name)
        found += [folder / one for one in files]
        found += [folder / one for one in folders if os.path.islink(folder / one)]  # noqa: PTH114  tells, where Path.is_symlink would raise
    if source in found:
        raise UsageError(f"{source}: cannot be read")
    return [path.relative_to(source) for path in found]


def _is_work(path: Path) -> bool:
    if any(part.startswith(".") for part in path.parts) or path.name == "DICOMDIR":
        return False
    return path.suffix not in OWN_SUFFIXES and str(path) not in OWN_FILES


def plain_file(source: Path, path: Path) -> Path:
    """Return where a listed file lies, if it is a plain file; a source itself may be a link.

    Raises
    ------
    SourceError
        It is a symbolic link, which may lead anywhere, a folder that cannot be read, or
        neither file nor folder: a pipe would keep its reader waiting.
    """
    whole = folder_of(source) / path
    if whole == source:
        return whole
    try:
        mode = whole.lstat().st_mode
    except OSError as error:
        raise SourceError(f"{whole}: cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise SourceError(
            f"{whole}: is a symbolic link, which is not followed",
            "put what it leads to in its place",
        )
    if stat.S_ISDIR(mode):
        raise SourceError(f"{whole}: the folder cannot be read")
    if not stat.S_ISREG(mode):
        raise SourceError(f"{whole}: is no plain file")
    return whole


def folder_of(source: Path) -> Path:
    """Return the folder that listed names are relative to."""
    return source.parent if source.is_file() else source


def check_names(source: Path, *folders: str) -> None:
    """Refuse a source in which something has a name that a lock run itself writes.

    Parameters
    ----------
    source
        A folder, or one file.
    folders
        Names of the folders that the run writes into.

    Raises
    ------
    UsageError
        ``lock.json`` or ``report.html`` at the top, or a file called as one of the folders.
    """
    folder = folder_of(source)
    top = [source] if source.is_file() else [folder / name for name in (*OWN_FILES, *folders)]
    for path in top:
        if (path.name in OWN_FILES and os.path.lexists(path)) or (
            path.name in folders and path.is_file()
        ):
            raise UsageError(
                f"{path}: has the name of something that locking writes",
                "rename it; what is locked already is not locked again",
            )


def check_apart(source: Path, destination: Path) -> None:
    """Refuse a destination inside its source, or the other way round.

    The folder of a source that is one file may hold the destination, but not be it.

    Raises
    ------
    DestinationError
        They overlap.
    """
    # Unlike Path.resolve, realpath lets a loop of links pass: whoever opens it names it.
    src, dst = (Path(os.path.realpath(one)) for one in (folder_of(source), destination))
    nested = src in dst.parents or dst in src.parents
    if dst == src or (nested and not source.is_file()):
        raise DestinationError(
            f"{destination}: source and destination lie inside each other",
            "choose a folder outside the source",
        )

"""True grades of photographs, as a data set's owner keeps them."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


NAMES = ("file", "uid", "image", "Image name", "id_code")
GRADES = ("grade", "level", "Retinopathy grade", "diagnosis")


def read_labels(path: Path, classes: int, split: str = "") -> dict[str, int]:
    """Read true grades: CSV with a header, the columns ``file`` (or ``uid``) and ``grade``.

    The columns may also be called as in the public sets: ``Image name`` and ``Retinopathy grade``
    (IDRiD), ``image`` and ``level`` (Kaggle's EyePACS), ``id_code`` and ``diagnosis`` (APTOS).

    Parameters
    ----------
    path
        The file; further columns are left alone.
    classes
        Grades are 0 to one less.
    split
        Read only the rows whose column ``split`` says so; empty reads all.

    Raises
    ------
    UsageError
        The file is unreadable, lacks a column, holds a grade out of range, or two for one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            rows, columns = list(table), set(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not readable as CSV") from error
    named = [name for name in NAMES if name in columns]
    graded = [name for name in GRADES if name in columns]
    if not named or not graded:
        raise UsageError(
            f"{path}: has no columns file (or uid) and grade", "its first line names the columns"
        )
    if split and "split" not in columns:
        raise UsageError(f"{path}: has no column split")
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        if split and row["split"] != split:
            continue
        if not any(row.values()):  # as at the end of IDRiD's
            continue
        key = next((row[name] for name in named if row[name]), None)
        grade = row[graded[0]] or ""
        if not key or not re.fullmatch("[0-9]{1,3}", grade) or int(grade) >= classes:
            raise UsageError(
                f"{path}, line {number}: needs file (or uid) and a grade from 0 to {classes - 1}",
                "the first line names the columns, such as file,grade",
            )
        if labels.setdefault(key, int(grade)) != int(grade):
            raise UsageError(f"{path}, line {number}: {key} has grade {labels[key]} further up")
    return labels

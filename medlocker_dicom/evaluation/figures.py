"""A table of rates as a figure, for a page and as a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from medlocker_dicom.evaluation.rates import Rate

if TYPE_CHECKING:
    from medlocker_dicom.evaluation.tables import Cell, Table

mpl.use("Agg")


def draw(table: Table) -> bytes:
    """Draw a table as PNG.

    Returns
    -------
    bytes
        Where its columns are alike, a field for each rate; else the first column of rates as bars
        with their intervals. Empty where there is no rate.
    """
    columns = [n for n in range(len(table.columns)) if any(_has_rate(r[n]) for r in table.rows)]
    if not columns:
        return b""
    figure = fields(table, columns) if table.alike else bars(table, columns[0])
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png")
    return stream.getvalue()


def bars(table: Table, column: int) -> Figure:
    """Draw a column of rates, with intervals."""
    shown = [row for row in table.rows if _has_rate(row[column])]
    rates = [cell for row in shown if _has_rate(cell := row[column])]
    labels = [_label(row, column) for row in shown]
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(rates)), layout="constrained")
    axes = figure.subplots()
    shares = [100 * rate.share for rate in rates]
    reach = 100 * np.array([rate.reach for rate in rates]).T
    axes.barh(range(len(rates)), shares, xerr=reach, color="#4a7", ecolor="#333", capsize=3)
    axes.set_yticks(range(len(rates)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel=f"{table.columns[column]}, %")
    axes.grid(axis="x", alpha=0.3)
    return figure


def fields(table: Table, columns: list[int]) -> Figure:
    """Draw rows by columns, a rate's share as the colour of its field, and as hits of n in it."""
    shown = [row for row in table.rows if any(_has_rate(row[n]) for n in columns)]
    rates = [[row[n] for n in columns] for row in shown]
    shares = [[100 * c.share if _has_rate(c) else np.nan for c in row] for row in rates]
    figure = Figure(figsize=(3 + 0.8 * len(columns), 1.1 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for down, row in enumerate(rates):
        for across, cell in enumerate(row):
            if _has_rate(cell):
                words, dark = f"{cell.hits}/{cell.n}", cell.share < 0.6
                colour = "white" if dark else "black"
                axes.text(across, down, words, ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(shown)), [_label(row, columns[0]) for row in shown], fontsize=8)
    axes.set_xticks(range(len(columns)), [table.columns[n] for n in columns], fontsize=8)
    figure.colorbar(picture, label="%")
    return figure


def _label(row: tuple[Cell, ...], column: int) -> str:
    return " ".join(cell for cell in row[:column] if isinstance(cell, str))


def _has_rate(cell: Cell) -> TypeGuard[Rate]:
    return isinstance(cell, Rate) and cell.n > 0

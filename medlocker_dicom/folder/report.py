"""The owner's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medlocker_dicom.evaluation.rates import Rate

CHART = (220, 70)  # px


def render_report(summary: dict[str, Any], thumbnails: dict[str, str]) -> str:
    """Render a lock run.

    Parameters
    ----------
    summary
        What ``lock.json`` holds.
    thumbnails
        Base64 JPEG of the locked picture by path.

    Returns
    -------
    str
        HTML. It shows no original, but grades and lesion boxes: it is the owner's.
    """
    frames = [f for i in summary["instances"] for f in i["frames"]]
    labelled = [f for f in frames if f["label_given"] and f["clean_grade"] == f["label"]]
    facts = {
        "instances": len(summary["instances"]),
        "failed": len(summary["failed"]),
        "changed": str(Rate(sum(f["flipped"] for f in frames), len(frames))),
        "labelled": str(Rate(sum(f["flipped"] for f in labelled), len(labelled))),
        "each": [
            (
                model["name"],
                str(Rate(sum(_turned(f, column) for f in frames), len(frames))),
            )
            for column, model in enumerate(summary["models"])
        ],
        "passes": f"{fmean(f['forward_passes'] for f in frames):.0f}" if frames else "-",
        "seconds": f"{fmean(i['seconds'] for i in summary['instances']):.1f}" if frames else "-",
        "attacked": _withstood([f["attacks"]["undone_by"] for f in frames if "attacks" in f]),
        "covered": sum(f["covered_lesion_px"] > 0 for f in frames),
    }
    environment = Environment(
        loader=PackageLoader("medlocker_dicom.folder", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(polyline=polyline, zip=zip)
    template = environment.get_template("report.html")
    return template.render(summary=summary, facts=facts, thumbnails=thumbnails, chart=CHART)


def _withstood(undone: list[list[str] | None]) -> str:
    """Rate of those that no attack undid among those that were turned; empty without attacks."""
    turned = [names for names in undone if names is not None]
    return str(Rate(sum(not names for names in turned), len(turned))) if undone else ""


def _turned(frame: dict[str, Any], column: int) -> bool:
    model = frame["models"][column]
    return _argmax(model["clean"]) != _argmax(model["locked"])


def _argmax(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def polyline(history: list[list[float]], passes: int) -> str:
    """Points of an SVG step line: probability of the label over forward passes."""
    width, height = CHART
    points: list[str] = []
    steps = [*history, [passes, history[-1][1]]]
    before: float | None = None
    for count, probability in steps:
        x = width * count / max(passes, 1)
        if before is not None:
            points.append(f"{x:.1f},{height * (1 - before):.1f}")
        points.append(f"{x:.1f},{height * (1 - probability):.1f}")
        before = probability
    return " ".join(points)

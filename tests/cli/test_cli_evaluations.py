"""Transcripts of medlocker evaluate."""

import csv
import json
import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from desk import Desk, eye_pixels
from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier
from tiny_bundles import write_classifier

TINY = "dr_classifier_tiny"
TABLES = {
    "asr": ["asr"],
    "transfer": ["transfer-conditional", "transfer"],
    "wsm": ["wsm"],
    "ablation": ["ablation"],
    "redteam": [
        "redteam-default",
        "redteam-paper",
        "redteam-random-placement",
        "redteam-paper-whole-budget",
    ],
    "visibility": ["visibility"],
}


@pytest.fixture
def graded(office: Desk, tiny_bundles: Path) -> Path:
    """Return a CSV by which the tiny grader is right about two of three eyes."""
    rows = ["file,grade"]
    for number in range(3):
        grade = photograph(office, tiny_bundles, f"eye{number}", eye_pixels(number)[0])
        rows.append(f"eye{number},{(grade + (number == 2)) % 5}")
    return office.put("labels.csv", "\n".join(rows).encode())


def photograph(desk: Desk, bundles: Path, name: str, rgb: NDArray[np.uint8]) -> int:
    """Put a photograph among the eyes; return the grade that the tiny grader gives it."""
    desk.put(f"eyes/{name}.png", cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    return int(grader(bundles).photograph(rgb).argmax())


@cache
def grader(bundles: Path) -> Classifier:
    """Return the tiny grader."""
    bundle = read_bundle(bundles / TINY)
    return Classifier(bundle, OnnxEngine(bundle))


def arguments(desk: Desk, labels: Path, *more: str) -> tuple[str | Path, ...]:
    """Return what every study is given."""
    rest = ("--models", TINY, "--each", "1", "--budget", "12", *more)
    return (desk / "eyes", desk / "out", "--labels", labels, *rest)


def refused(desk: Desk, code: int, *words: str | Path) -> str:
    """Return the one error of a command that exits with a code."""
    said = desk.run(*words)
    assert said.code == code, said.err
    (error,) = said.errors
    return error


@pytest.mark.parametrize("study", TABLES)
def test_a_study_leaves_its_report(office: Desk, graded: Path, study: str) -> None:
    """JSON, CSV, pictures, and a page that needs nothing beside it; again, it asks nothing."""
    said = office.good("evaluate", study, *arguments(office, graded))
    out = office / "out"
    whole = json.loads((out / f"{study}.json").read_text())
    assert [table["name"] for table in whole["tables"]] == TABLES[study]
    assert whole["photographs"] == len({row["image"] for row in whole["rows"]}) <= 2
    assert all(row["image"] != "eye2.png" for row in whole["rows"])
    for table in whole["tables"]:
        with (out / f"{table['name']}.csv").open(newline="") as stream:
            rows = list(csv.reader(stream))
        assert len(rows) == len(table["rows"]) + 1
        assert {len(row) for row in rows} == {len(rows[0])}
        assert table["title"] in said.out
    page = (out / f"{study}.html").read_text()
    assert not re.search(r"(src|href)=.?(?!data:)(http|/|\w+\.(png|css|js))", page)
    assert page.count("<table>") == len(TABLES[study])
    assert "data:image/jpeg;base64," in page
    before = (out / "rows.jsonl").read_bytes()
    again = office.good("evaluate", study, *arguments(office, graded))
    assert again.out == said.out
    assert (out / "rows.jsonl").read_bytes() == before


def test_many_locks_are_attacked_together(office: Desk, tiny_bundles: Path) -> None:
    """From four photographs on, the red team has matting too; done once, it is kept."""
    rows = ["file,grade"]
    for number in range(4):
        grade = photograph(office, tiny_bundles, f"eye{number}", eye_pixels(0, 96)[0])
        rows.append(f"eye{number},{grade}")
    labels = office.put("more.csv", "\n".join(rows).encode())
    words = (office / "eyes", office / "out", "--labels", labels, "--models", TINY)
    office.good("evaluate", "redteam", *words, "--each", "4", "--budget", "2")
    whole = json.loads((office / "out" / "redteam.json").read_text())
    for table in whole["tables"]:
        (line,) = [row for row in table["rows"] if row[0] == "A3 matting"]
        assert line[1] > 0
        assert line[4]["n"] == 4
    before = (office / "out" / "rows.jsonl").read_bytes()
    office.good("evaluate", "redteam", *words, "--each", "4", "--budget", "2")
    assert (office / "out" / "rows.jsonl").read_bytes() == before
    lost = next(row["locked_picture"] for row in whole["rows"])
    (office / "out" / lost).unlink()
    office.good("evaluate", "redteam", *words, "--each", "4", "--budget", "2")
    assert (office / "out" / lost).is_file()


def test_studies_share_what_is_locked(office: Desk, graded: Path) -> None:
    """Transfer needs no lock that asr has made."""
    office.good("evaluate", "asr", *arguments(office, graded))
    before = (office / "out" / "rows.jsonl").read_bytes()
    office.good("evaluate", "transfer", *arguments(office, graded))
    assert (office / "out" / "rows.jsonl").read_bytes() == before


def test_a_killed_study_goes_on(office: Desk, graded: Path) -> None:
    """Of the rows that are there none is made again, and the end is the same."""
    whole = office.good("evaluate", "visibility", *arguments(office, graded), "--json").out
    rows = office / "out" / "rows.jsonl"
    lines = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    again = office.good("evaluate", "visibility", *arguments(office, graded), "--json").out
    assert rows.read_bytes().splitlines(keepends=True)[:2] == lines[:2]

    def timeless(text: str) -> str:
        return re.sub(r'"seconds": [0-9.]+', "", text)

    assert timeless(again) == timeless(whole)


def test_targets_are_asked_and_not_searched(office: Desk, graded: Path, tmp_path: Path) -> None:
    """A model given by --targets has a column, and a photograph that it errs on is not drawn."""
    other = write_classifier(tmp_path / "dr_classifier_other", seed=3)
    office.good("evaluate", "transfer", *arguments(office, graded, "--targets", str(other)))
    whole = json.loads((office / "out" / "transfer.json").read_text())
    assert whole["tables"][0]["columns"][2:] == ["tiny", "other", "all targets"]
    assert {tuple(row["sources"]) for row in whole["rows"]} == {(TINY,)}
    # the same weights by another name: turned together, always
    sources = [row for row in whole["tables"][0]["rows"] if row[1] != "in the paper, %"]
    assert all(row[3]["hits"] == row[3]["n"] for row in sources)


def test_no_photograph_that_is_graded_correctly(office: Desk, graded: Path) -> None:
    """One error says so, and no report is begun."""
    wrong = graded.read_text().splitlines()[3]
    labels = office.put("wrong.csv", f"file,grade\n{wrong}\n".encode())
    said = refused(office, 2, "evaluate", "asr", *arguments(office, labels))
    assert f"no photograph is graded correctly by {TINY} alike" in said
    assert not list((office / "out").glob("*.html"))


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--mode", "somewhere"), 2, "mode 'somewhere' is unknown"),
        (("--targets", "resnet1800"), 6, "resnet1800"),
        (("--split", "val"), 2, "has no column split"),
    ],
)
def test_unusable_options(
    office: Desk, graded: Path, more: tuple[str, ...], code: int, words: str
) -> None:
    """Each is one error."""
    assert words in refused(office, code, "evaluate", "asr", *arguments(office, graded, *more))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("grades.jsonl", (b'"grade": ', b'"grade": "x", "was": '), "is kept as 'x'"),
        ("rows.jsonl", (b'"locked"', b'"unlocked"'), "not what an evaluation writes"),
    ],
)
def test_a_folder_of_other_findings(
    office: Desk, graded: Path, name: str, change: tuple[bytes, bytes], words: str
) -> None:
    """Lines that could be ours and are not end in one error, and stay."""
    office.good("evaluate", "asr", *arguments(office, graded))
    path = office / "out" / name
    changed = path.read_bytes().replace(*change)
    path.write_bytes(changed)
    assert words in refused(office, 9, "evaluate", "asr", *arguments(office, graded))
    assert path.read_bytes() == changed


def test_pictures_that_cannot_be_kept(office: Desk, graded: Path) -> None:
    """A file that lies where their folder should be is an error of the output."""
    office.put("out/pictures", b"")
    said = refused(office, 9, "evaluate", "asr", *arguments(office, graded))
    assert "pictures" in said


def test_photographs_without_a_position_are_told(office: Desk, graded: Path) -> None:
    """No box, no place inside one: the rates say no cases, and a line says why."""
    said = office.good("evaluate", "asr", *arguments(office, graded, "--mode", "inside"))
    assert "no cases" in said.out
    total = json.loads((office / "out" / "asr.json").read_text())["locks"]
    words = f"{total} of {total} locks"
    assert f"{words}: no position that the mode allows; they are in no rate" in said.out
    assert words in (office / "out" / "asr.html").read_text()


def test_a_folder_whose_name_is_no_text(office: Desk, tiny_bundles: Path) -> None:
    """It is evaluated as any other."""
    grade = photograph(office, tiny_bundles, "d\udcff/a", eye_pixels(0)[0])
    labels = office.put("labels.csv", f"file,grade\na,{grade}\n".encode())
    office.good("evaluate", "asr", *arguments(office, labels))
    assert "d?/a.png" in (office / "out" / "asr.html").read_text()


def test_a_damaged_photograph_is_named(office: Desk, graded: Path) -> None:
    """Nothing is left out silently."""
    office.put("eyes/eye0.png", b"\x89PNG but no picture")
    said = refused(office, 4, "evaluate", "asr", *arguments(office, graded))
    assert "eye0.png: not an image" in said

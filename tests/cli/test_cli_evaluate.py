"""Transcripts of medlocker bundles evaluate."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from desk import Desk, eye_pixels
from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier
from tiny_bundles import write_segmenter

GRADER, MARKER = "dr_classifier_tiny", "lesion_segmenter"
FIGURES = ["n", "accuracy", "kappa", "ece", "auc_any", "auc_referable"]


def picture(number: int = 0, kind: str = "PNG") -> bytes:
    """Return an eye as an image file."""
    stream = io.BytesIO()
    Image.fromarray(eye_pixels(number)[0]).save(stream, kind)
    return stream.getvalue()


def mask(bits: int, side: int = 160) -> bytes:
    """Return a mask that carries the bits in its middle, 40 px wide."""
    plane = np.zeros((side, side), np.uint8)
    plane[60:100, 60:100] = bits
    return cv2.imencode(".png", plane)[1].tobytes()


def specks() -> bytes:
    """Return a picture of bright specks, none as large as a retina."""
    places = np.arange(160) // 10 % 2
    return cv2.imencode(".png", np.outer(places, places).astype(np.uint8) * 255)[1].tobytes()


def bomb(side: int) -> bytes:
    """Return a PNG of a few bytes whose header claims a large square."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def eyes(office: Desk) -> Path:
    """Return a folder of six photographs, ``eye0.png`` and so on."""
    for number in range(6):
        office.put(f"eyes/eye{number}.png", picture(number))
    return office / "eyes"


def chances(bundles: Path, cache: Path, count: int = 6) -> NDArray[np.float64]:
    """Return the tiny grader's probabilities of the eyes; float64 (count, 5)."""
    bundle = read_bundle(bundles / GRADER)
    grader = Classifier(bundle, OnnxEngine(bundle, cache))
    return np.stack([grader.photograph(eye_pixels(number)[0]) for number in range(count)])


def table(grades: list[int], *columns: str) -> bytes:
    """Return a CSV of the eyes' grades, with further columns of one word each."""
    head = ",".join(["file", "grade", *(column.split("=")[0] for column in columns)])
    more = "".join(f",{column.split('=')[1]}" for column in columns)
    rows = [f"eye{number}.png,{grade}{more}" for number, grade in enumerate(grades)]
    return "\n".join([head, *rows, ""]).encode()


def test_a_graders_figures(
    office: Desk, eyes: Path, tiny_bundles: Path, export_cache: Path
) -> None:
    """With its own answers for truth a grader is right, and as sure as it says."""
    each = chances(tiny_bundles, export_cache)
    grades = [int(grade) for grade in each.argmax(1)]
    assert len(set(grades)) > 1, "the eyes differ for this grader"
    labels = office.put("labels.csv", table(grades))
    outcome = office.good(
        "bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels, "--json"
    )
    facts = json.loads(outcome.out)
    assert list(facts) == ["name", "sha256", "figures"]
    assert facts["name"] == GRADER
    assert facts["sha256"] == read_bundle(tiny_bundles / GRADER).weights_sha256
    figures = facts["figures"]
    assert list(figures) == FIGURES
    assert (figures["n"], figures["accuracy"], figures["kappa"]) == (6, 1, 1)
    assert figures["ece"] == pytest.approx(1 - each.max(1).mean(), abs=1e-3)
    assert outcome.err == ""


def test_a_grader_that_is_wrong(
    office: Desk, eyes: Path, tiny_bundles: Path, export_cache: Path
) -> None:
    """Two wrong grades of six: accuracy is two thirds, and kappa is what its formula says."""
    chosen = chances(tiny_bundles, export_cache).argmax(1)
    truth = chosen.copy()
    truth[:2] = (truth[:2] + 1) % 5
    labels = office.put("labels.csv", table([int(one) for one in truth]))
    arguments = ("bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels)
    figures = json.loads(office.good(*arguments, "--json").out)["figures"]
    cost = (chosen[:, None] - truth[None]) ** 2
    kappa = 1 - np.trace(cost) / 6 / cost.mean()
    assert figures["accuracy"] == pytest.approx(4 / 6, abs=1e-4)
    assert figures["kappa"] == pytest.approx(kappa, abs=1e-4)


def test_figures_for_people(office: Desk, eyes: Path) -> None:
    """Without --json each figure has a line, in words."""
    labels = office.put("labels.csv", table([0, 1, 2, 3, 4, 0]))
    out = office.good("bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels).out
    rows = {line[:18].strip(): line[18:].strip() for line in out.splitlines()}
    assert list(rows) == ["name", "sha256", *(name.replace("_", " ") for name in FIGURES)]
    assert rows["name"] == GRADER
    assert float(rows["n"]) == 6
    assert 0 <= float(rows["accuracy"]) <= 1
    assert 0 <= float(rows["auc referable"]) <= 1


@pytest.mark.filterwarnings("error")
def test_figures_that_are_not_defined(
    office: Desk, eyes: Path, tiny_bundles: Path, export_cache: Path
) -> None:
    """Of eyes of one grade there is no ROC curve, and no kappa: null, and no warning."""
    grade = int(chances(tiny_bundles, export_cache, 1).argmax())
    labels = office.put("labels.csv", table([grade]))
    arguments = ("bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels)
    figures = json.loads(office.good(*arguments, "--json").out)["figures"]
    assert [figures[name] for name in ("n", "accuracy")] == [1, 1]
    assert [figures[name] for name in ("kappa", "auc_any", "auc_referable")] == [None] * 3


def test_a_split_is_a_part_of_the_table(office: Desk, eyes: Path) -> None:
    """Rows of other splits count nowhere: neither their photographs nor their grades matter."""
    rows = [*table([0, 1, 2], "split=val").decode().splitlines(), "absent.png,,train"]
    labels = office.put("labels.csv", "\n".join(rows).encode())
    arguments = ("bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels, "--json")
    figures = json.loads(office.good(*arguments, "--split", "val").out)["figures"]
    assert figures["n"] == 3
    whole = office.run(*arguments)
    assert (whole.code, len(whole.errors)) == (2, 1)
    assert "labels.csv, line 5" in whole.errors[0]


def test_every_kind_of_photograph(office: Desk) -> None:
    """JPEG, TIFF, BMP, grey, deep and transparent pictures are read, whatever they are called."""
    eye = eye_pixels(0)[0]
    deep = cv2.imencode(".png", eye[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    others = {"l.png": "L", "p.png": "P", "rgba.png": "RGBA", "cmyk.tif": "CMYK"}
    names = ["deep.png", *others]
    office.put("deep.png", deep)
    for name, mode in others.items():
        Image.fromarray(eye).convert(mode).save(office / name)
    for kind in ("JPEG", "TIFF", "BMP"):
        names.append(f"eye.{kind}")
        office.put(names[-1], picture(0, kind))
    rows = "".join(f"{name},2\n" for name in names)
    labels = office.put("labels.csv", f"file,grade\n{rows}".encode())
    arguments = ("bundles", "evaluate", GRADER, "--images", office.root, "--labels", labels)
    figures = json.loads(office.good(*arguments, "--json").out)["figures"]
    assert figures["n"] == len(names) == 8


def test_a_segmenters_figures(office: Desk) -> None:
    """One that marks everything finds every lesion, and all else; names need not be UTF-8."""
    write_segmenter(office / "mine" / MARKER, everywhere=10)
    office.put("eyes/a.png", picture(0))
    office.put("eyes/b-\udcff.jpg", picture(1, "JPEG"))
    office.put("masks/a.png", mask(0b10010))
    office.put("masks/b-\udcff.png", mask(0b10000))
    arguments = ("bundles", "evaluate", MARKER, "--bundles", office / "mine")
    more = ("--images", office / "eyes", "--masks", office / "masks")
    facts = json.loads(office.good(*arguments, *more, "--json").out)
    assert list(facts) == ["name", "sha256", "figures"]
    figures = facts["figures"]
    assert list(figures) == ["MA", "HE", "EX", "SE", "OD", "healthy"]
    share = (40 / 160) ** 2
    assert figures["HE"]["n"] == 2
    assert figures["HE"]["dice"] == pytest.approx(2 * share / 2 / (share / 2 + 1), abs=0.02)
    assert figures["OD"]["dice"] == pytest.approx(2 * share / (share + 1), abs=0.02)
    assert figures["MA"] == {"n": 2, "dice": 0, "aupr": None}
    assert figures["healthy"] == {"n": 1, "marked_share": 1, "without_any": 0}
    lines = office.good(*arguments, *more).out.splitlines()
    assert lines[2].split()[:5] == ["MA", "n", "2", "dice", "0.0"]


def test_a_segmenter_that_marks_nothing(office: Desk) -> None:
    """It leaves healthy eyes alone, and finds no lesion; one file may stand for a folder."""
    eye, black = office.put("eye.png", picture()), office.put("masks/eye.png", mask(0))
    arguments = ("bundles", "evaluate", MARKER, "--images", eye, "--masks", black.parent, "--json")
    figures = json.loads(office.good(*arguments).out)["figures"]
    assert figures["healthy"] == {"n": 1, "marked_share": 0, "without_any": 1}
    assert figures["HE"] == {"n": 1, "dice": None, "aupr": None}


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (b"file,grade,split\neye0.png,1,train\n", ("--split", "val"), "no rows of split val"),
        (b"file,grade\neye0.png,1\n", ("--split", "val"), "has no column split"),
        (b"file,grade\n", (), "no rows"),
        (b"", (), "has no columns file (or uid) and grade"),
        (b"picture,level\neye0.png,1\n", (), "has no columns file (or uid) and grade"),
        (b"file,grade\neye0.png,1\neye1.png,5\n", (), "line 3: needs file (or uid) and a grade"),
        (b"file,grade\neye0.png,-1\n", (), "line 2: needs file (or uid) and a grade from 0 to 4"),
        (b"file,grade\neye0.png,1\neye0.png,2\n", (), "line 3: eye0.png has grade 1 further up"),
        (b"\x89PNG\r\n\x1a\n\0\0", (), "not readable as CSV"),
    ],
    ids=["split", "no-split", "header", "empty", "columns", "high", "low", "two", "picture"],
)
def test_bad_labels_are_refused(
    office: Desk, eyes: Path, content: bytes, more: tuple[str, ...], words: str
) -> None:
    """A table that cannot be used is one error that names it, and its line where there is one."""
    labels = office.put("labels.csv", content)
    outcome = office.run(
        "bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels, "--json", *more
    )
    assert (outcome.code, len(outcome.errors), outcome.out) == (2, 1, "")
    assert f"{labels}" in outcome.errors[0]
    assert words in outcome.errors[0]


def test_missing_photographs_are_counted(office: Desk, eyes: Path) -> None:
    """The first that is missing is named with how many there are, before any is graded."""
    (eyes / "eye0.png").write_bytes(b"would be refused if it were read")
    labels = office.put("labels.csv", table([0] * 9))
    outcome = office.run("bundles", "evaluate", GRADER, "--images", eyes, "--labels", labels)
    assert (outcome.code, len(outcome.errors), outcome.out) == (2, 1, "")
    told = f"{eyes / 'eye6.png'}: no such photograph; 3 of 9 are missing"
    assert told in outcome.errors[0]
    assert f"medlocker: hint: {labels} names them, relative to --images" in outcome.err


@pytest.mark.parametrize(
    ("bundle", "options"),
    [
        (GRADER, ("--masks",)),
        (GRADER, ("--labels", "--masks")),
        (GRADER, ()),
        (MARKER, ("--labels",)),
        (MARKER, ("--labels", "--masks")),
        (MARKER, ("--masks", "--split")),
        (MARKER, ()),
    ],
)
def test_the_wrong_truth_for_the_model(
    office: Desk, eyes: Path, bundle: str, options: tuple[str, ...]
) -> None:
    """Grades are for classifiers and masks for segmenters; the hint names the right option."""
    labels = office.put("labels.csv", table([0]))
    given = {"--labels": labels, "--masks": eyes, "--split": Path("val")}
    more = [one for option in options for one in (option, given[option])]
    outcome = office.run("bundles", "evaluate", bundle, "--images", eyes, *more)
    assert (outcome.code, len(outcome.errors), outcome.out) == (2, 1, "")
    kind, option = ("classifier", "--labels") if bundle == GRADER else ("segmenter", "--masks")
    assert f"{bundle} is a {kind}" in outcome.errors[0]
    assert f"by {option}" in outcome.err


@pytest.mark.parametrize(
    ("bundle", "words"), [("lenet", "no bundle named lenet"), ("./absent", "no such file")]
)
def test_a_model_that_is_not_there(office: Desk, eyes: Path, bundle: str, words: str) -> None:
    """By name or path, it ends with the code of models."""
    labels = office.put("labels.csv", table([0]))
    outcome = office.run("bundles", "evaluate", bundle, "--images", eyes, "--labels", labels)
    assert (outcome.code, len(outcome.errors), outcome.out) == (6, 1, "")
    assert words in outcome.errors[0]


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a black picture": (lambda: mask(0), "dark all over"),
    "specks": (specks, "no retina was found"),
    "a cut JPEG": (lambda: picture(0, "JPEG")[:-900], "damaged"),
    "a cut TIFF": (lambda: picture(0, "TIFF")[:-900], "damaged"),
    "a cut PNG": (lambda: picture()[:-900], "damaged"),
    "a letter": (lambda: b"Dear colleague, " * 99, "not an image"),
    "an empty file": (lambda: b"", "not an image"),
    "too large": (lambda: bomb(11_600), "11600 x 11600 px are more than 134217728"),
    "a bomb": (lambda: bomb(65535), "more than 134217728 px"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("bundle", [GRADER, MARKER])
def test_a_bad_photograph_is_named(
    office: Desk, eyes: Path, bundle: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What shows no retina, or is no whole image, is one error with the file's name."""
    make, words = BAD[name]
    bad = office.put("eyes/eye3.png", make())
    for number in range(6):
        office.put(f"masks/eye{number}.png", mask(1))
    labels = office.put("labels.csv", table([0, 1, 2, 3, 4, 0]))
    truth = ("--labels", labels) if bundle == GRADER else ("--masks", office / "masks")
    outcome = office.run("bundles", "evaluate", bundle, "--images", eyes, *truth, "--json")
    assert (outcome.code, len(outcome.errors), outcome.out) == (4, 1, "")
    assert outcome.errors[0].startswith(f"medlocker: error: {bad}: ")
    assert words in outcome.errors[0]
    assert capfd.readouterr().err == "", "nothing of the libraries' own"


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (None, "no mask of eye0.png", 2),
        (mask(1, 80), "not a mask of eye0.png: 160 x 160 px and bits 0 to 4 are wanted", 2),
        (mask(0b100000), "not a mask of eye0.png", 2),
        (mask(255), "not a mask of eye0.png", 2),
        (picture(), "not a mask: one channel of 8 bits", 4),
        (mask(1)[:-20], "damaged", 4),
        (b"", "not an image", 4),
    ],
    ids=["missing", "size", "bit", "white", "colour", "cut", "empty"],
)
def test_a_bad_mask_is_named(
    office: Desk, eyes: Path, content: bytes | None, words: str, code: int
) -> None:
    """A mask that does not belong to its photograph is one error with the mask's name."""
    path = office / "masks" / "eye0.png"
    if content is not None:
        office.put("masks/eye0.png", content)
    arguments = ("bundles", "evaluate", MARKER, "--images", eyes, "--masks", path.parent)
    outcome = office.run(*arguments)
    assert (outcome.code, len(outcome.errors), outcome.out) == (code, 1, "")
    assert outcome.errors[0].startswith(f"medlocker: error: {path}: ")
    assert words in outcome.errors[0]


def test_no_photographs_at_all(office: Desk) -> None:
    """A folder without images, or none, is named; a photograph that is a folder too."""
    (office / "empty").mkdir()
    for name in ("empty", "absent"):
        arguments = ("bundles", "evaluate", MARKER, "--images", office / name)
        outcome = office.run(*arguments, "--masks", office.root)
        assert (outcome.code, len(outcome.errors)) == (2, 1)
        assert f"{office / name}: no images" in outcome.errors[0]
    (office / "eyes" / "eye.png").mkdir(parents=True)
    arguments = ("bundles", "evaluate", MARKER, "--images", office / "eyes")
    outcome = office.run(*arguments, "--masks", office.root)
    assert (outcome.code, len(outcome.errors)) == (4, 1)
    assert f"{office / 'eyes' / 'eye.png'}" in outcome.errors[0]

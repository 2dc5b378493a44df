"""The demonstration, small."""

import re
import sys
from types import SimpleNamespace

import pytest

from desk import Desk, eye_pixels, record_of, tree


@pytest.fixture
def small(office: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Shrink the demonstration's eyes: the phantom, and scikit-image's photograph."""
    from medlocker_dicom import demo  # noqa: PLC0415  loads matplotlib and torch

    monkeypatch.setattr(demo, "PHANTOM_SIZE", (160, 160))
    picture = SimpleNamespace(retina=lambda: eye_pixels(3)[0])
    monkeypatch.setitem(sys.modules, "skimage.data", picture)
    return office


def test_the_demonstration_goes_all_the_way(small: Desk) -> None:
    """Two eyes locked and unlocked, a stranger and a flipped bit refused, a report left."""
    outcome = small.good("demo", small / "out")
    assert outcome.out == f"{small / 'out' / 'report.html'}\n"
    said = outcome.err
    assert said.count("all 76800 samples equal the original") == 2
    assert "refused mallory: no key file is for this identity" in said
    assert "refused one flipped bit: " in said
    names = {"phantom-with-lesions.dcm", "retina-photograph.dcm"}
    for folder in ("source", "unlocked"):
        assert names <= tree(small / "out" / folder)
    assert {one["path"] for one in record_of(small / "out" / "locked")["instances"]} == names
    page = (small / "out" / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 2
    assert not re.search(r"https?:|<script", page)
    assert not [path for path in tree(small / "out") if path.endswith(".part")]


def test_the_demonstration_needs_no_photograph(
    small: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without scikit-image it says so and goes on with the phantom."""
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    outcome = small.good("demo", small / "out")
    assert "scikit-image is not installed" in outcome.err
    assert len(record_of(small / "out" / "locked")["instances"]) == 1


@pytest.mark.parametrize("there", ["out/thesis.doc", "out"])
def test_the_demonstration_replaces_nothing(small: Desk, there: str) -> None:
    """A folder with something in it, or a file, is left as it is."""
    small.put(there, b"x")
    outcome = small.run("demo", small / "out")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert (small / there).read_bytes() == b"x"
    assert not (small / "out" / "report.html").exists()

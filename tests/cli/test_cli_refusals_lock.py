"""Bad input to medlocker lock: one error each, and nothing on the disk for it."""

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileDataset

from desk import QUICK, Desk, edit_json, eye_pixels, granted, record_of, results, tree, unprivileged
from factories import make_fundus
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import DestinationError
from medlocker_dicom.folder.keys import Keys
from medlocker_dicom.folder.unlock import unlock_folder
from medlocker_dicom.keyfile import Identity
from tiny_bundles import write_segmenter

GOOD_UID = "1.2.826.0.1.3680043.10.9.1"


def _eye(change: Callable[[FileDataset], object] = lambda _: None) -> bytes:
    ds = make_fundus(eye_pixels(1), instance_uid="1.2.3.4.5")
    change(ds)
    return to_bytes(ds)


def _with(**values: object) -> Callable[[], bytes]:
    def make() -> bytes:
        def change(ds: FileDataset) -> None:
            for keyword, value in values.items():
                setattr(ds, keyword, value)

        return _eye(change)

    return make


def _without(keyword: str) -> Callable[[], bytes]:
    return lambda: _eye(lambda ds: delattr(ds, keyword))


def _uid(value: str) -> bytes:
    """Return an eye whose SOP Instance UID is ``value``, which no tool would write."""
    data = _eye()
    before = b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.5\0"
    assert data.count(before) == 1
    padded = value.encode() + b"\0" * (len(value) % 2)
    return data.replace(before, b"\x08\x00\x18\x00UI" + bytes([len(padded), 0]) + padded)


def _syntax() -> bytes:
    data = _eye()
    known, unknown = (s.encode() for s in (uid.ExplicitVRLittleEndian, "1.2.840.10008.1.2.4.99"))
    at = data.index(known)
    pad = known + b"\0" * (len(known) % 2)
    new = unknown + b"\0" * (len(unknown) % 2)
    head = bytearray(data[:at] + new + data[at + len(pad) :])
    head[at - 2 : at] = len(new).to_bytes(2, "little")
    group = int.from_bytes(head[140:144], "little") + len(new) - len(pad)
    head[140:144] = group.to_bytes(4, "little")
    return bytes(head)


BAD: dict[str, tuple[Callable[[], bytes], str, int]] = {
    "empty": (lambda: b"", "is empty", 4),
    "letter": (lambda: b"Dear colleague, " * 99, "is not a DICOM file", 4),
    "jpeg": (lambda: b"\xff\xd8\xff\xe0" + bytes(500), "is not a DICOM file", 4),
    "cut in half": (lambda: _eye()[: len(_eye()) // 2], "ends", 4),
    "cut by a byte": (lambda: _eye()[:-1], "ends", 4),
    "cut in its head": (lambda: _eye()[:200], "ends", 4),
    "no pixel data": (_without("PixelData"), "holds no pixel data", 4),
    "absurd size": (_with(Rows=65535, Columns=65535), "65535", 4),
    "more frames": (_with(NumberOfFrames="100000"), "100000", 4),
    "no rows": (_without("Rows"), "Rows is missing", 4),
    "signed": (_with(PixelRepresentation=1), "signed", 4),
    "unknown syntax": (_syntax, "transfer syntax", 4),
    "computed tomography": (_with(SOPClassUID=uid.CTImageStorage), "is not a fundus", 4),
    "a document": (_with(SOPClassUID=uid.EncapsulatedPDFStorage), "is not a fundus", 4),
    "a UID that climbs": (lambda: _uid("../../x"), "SOP Instance UID", 4),
    "a UID with a slash": (lambda: _uid("1.2/3"), "SOP Instance UID", 4),
    "an empty UID": (lambda: _uid(""), "SOP Instance UID", 4),
    "a black picture": (
        lambda: to_bytes(make_fundus(np.zeros((1, 160, 160, 3), np.uint8))),
        "",
        4,
    ),
    "one pixel": (lambda: to_bytes(make_fundus(np.full((1, 1, 1, 3), 99, np.uint8))), "", 4),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's; ours is the error
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_alone(office: Desk, name: str) -> None:
    """One error that names the file, its class's exit code; no locked file, grant or part."""
    make, words, code = BAD[name]
    office.eye("src/good.dcm", 0, instance_uid=GOOD_UID)
    bad = office.put("src/bad.dcm", make())
    outcome = office.lock(office / "src", office / "out")
    assert outcome.code == 3
    assert len(outcome.errors) == 1
    assert str(bad) in outcome.errors[0]
    assert words in outcome.errors[0]
    assert outcome.out.startswith("1 locked, 1 failed: ")
    assert results(office / "out") == {"good.dcm"}
    record = record_of(office / "out")
    assert [one["path"] for one in record["failed"]] == ["bad.dcm"]
    (instance,) = record["instances"]
    assert granted(office / "out") == {instance["locked_sop_instance_uid"]}
    alone = office.lock(bad, office / "alone")
    assert (alone.code, len(alone.errors)) == (code, 1)
    assert results(office / "alone") == set()
    assert granted(office / "alone") == set()


def test_bad_files_do_not_stop_the_others(office: Desk) -> None:
    """Of many files the bad ones are named in the record and the report, the others are done."""
    office.eyes("src", 6)
    office.put("src/a.txt", b"letter")
    office.put("src/eye3b.dcm", _eye()[:-9])
    outcome = office.lock(office / "src", office / "out")
    assert outcome.code == 3
    assert outcome.out.startswith("6 locked, 2 failed: ")
    assert results(office / "out") == {f"eye{n}.dcm" for n in range(6)}
    assert [one["path"] for one in record_of(office / "out")["failed"]] == ["a.txt", "eye3b.dcm"]
    page = (office / "out" / "report.html").read_text()
    assert "a.txt" in page
    assert "eye3b.dcm" in page
    assert len(granted(office / "out")) == 6


def test_a_failed_file_is_tried_again(office: Desk) -> None:
    """Mended, it is locked by the same command, and the others are left as they are."""
    office.eyes("src", 2)
    (office / "src" / "eye1.dcm").write_bytes(b"damaged")
    assert office.lock(office / "src", office / "out").code == 3
    kept = (office / "out" / "eye0.dcm").read_bytes()
    office.eyes("src", 2)
    outcome = office.lock(office / "src", office / "out")
    assert outcome.code == 0
    assert "1/2 already eye0.dcm" in outcome.err
    assert record_of(office / "out")["failed"] == []
    assert (office / "out" / "eye0.dcm").read_bytes() == kept
    assert len(granted(office / "out")) == 2


def test_one_instance_in_two_files_is_locked_once(office: Desk) -> None:
    """Of two files with one SOP Instance UID the second is refused, also by a later run."""
    office.eye("src/a.dcm", 0, instance_uid=GOOD_UID)
    office.eye("src/b.dcm", 1, instance_uid=GOOD_UID)
    for state in ("locked", "already"):
        outcome = office.lock(office / "src", office / "out")
        assert outcome.code == 3
        assert f"1/2 {state} a.dcm" in outcome.err
        assert len(outcome.errors) == 1
        assert f"b.dcm: SOP Instance UID {GOOD_UID} is that of a.dcm" in outcome.errors[0]
        assert results(office / "out") == {"a.dcm"}
        assert len(granted(office / "out")) == 1


def test_a_locked_instance_is_not_locked_again(archive: Desk, office: Desk) -> None:
    """A lock over a lock would be no lock: what is locked is refused."""
    shutil.copytree(archive / "locked", office / "sent")
    whole = office.lock(office / "sent", office / "out")
    assert (whole.code, len(whole.errors)) == (2, 1)
    assert "lock.json: has the name of something that locking writes" in whole.errors[0]
    assert not (office / "out").exists()
    for name in ("lock.json", "report.html"):
        (office / "sent" / name).unlink()
    outcome = office.lock(office / "sent", office / "out")
    assert outcome.code == 3
    assert len(outcome.errors) == 2
    assert all("is locked already" in line for line in outcome.errors)
    assert results(office / "out") == set()


def test_no_feasible_position_locks_nothing(
    office: Desk, tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where lesions are everywhere the logo goes nowhere: refused, in mode anywhere not."""
    folder = tmp_path_factory.mktemp("everywhere")
    shutil.copytree(tiny_bundles / "dr_classifier_tiny", folder / "dr_classifier_tiny")
    write_segmenter(folder / "lesion_segmenter", everywhere=10)
    more = ("--bundles", folder)
    outcome = office.lock(office.eyes("src", 1) / "eye0.dcm", office / "out", *more)
    assert (outcome.code, len(outcome.errors)) == (5, 1)
    assert "eye0.dcm" in outcome.errors[0]
    assert results(office / "out") == set()
    assert granted(office / "out") == set()
    anywhere = office.lock(office / "src", office / "any", *more, "--mode", "anywhere")
    assert anywhere.code == 0, anywhere.err
    (frame,) = record_of(office / "any")["instances"][0]["frames"]
    assert frame["covered_lesion_px"] > 0
    assert len(frame["boxes"]) > 0


def test_no_lesion_to_lie_on_locks_nothing(office: Desk) -> None:
    """Mode inside needs lesions."""
    outcome = office.lock(office.eyes("src", 1) / "eye0.dcm", office / "out", "--mode", "inside")
    assert (outcome.code, len(outcome.errors)) == (5, 1)
    assert results(office / "out") == set()


def _png(mode: str, size: tuple[int, int], colour: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("png", "words"),
    [
        (_png("RGB", (40, 40), (9, 9, 9)), "has no alpha channel"),
        (_png("RGBA", (40, 40), (9, 9, 9, 0)), "is fully transparent"),
        (_png("RGBA", (40, 40), (9, 9, 9, 9))[:-30], "is damaged"),
        (b"GIF89a" + bytes(99), "is not a PNG file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff" + bytes(9), "measures"),
    ],
    ids=["no-alpha", "transparent", "cut", "gif", "absurd"],
)
def test_an_unusable_logo_locks_nothing(office: Desk, png: bytes, words: str) -> None:
    """The logo is refused by name before any model is loaded or folder made."""
    logo = office.put("logo.png", png)
    outcome = office.lock(office.eyes("src", 1), office / "out", "--logo", logo)
    assert (outcome.code, len(outcome.errors)) == (5, 1)
    assert "logo.png" in outcome.errors[0]
    assert words in outcome.errors[0]
    assert not (office / "out").exists()


def test_a_logo_larger_than_the_picture_is_scaled(office: Desk) -> None:
    """2000 x 500 px on a picture of 160: a quarter as wide as it, and in its shape."""
    logo = office.put("logo.png", _png("RGBA", (2000, 500), (200, 30, 30, 255)))
    outcome = office.lock(office.eyes("src", 1), office / "out", "--logo", logo)
    assert outcome.code == 0, outcome.err
    (frame,) = record_of(office / "out")["instances"][0]["frames"]
    assert frame["logo_size"] == [40, 10]


def test_a_logo_as_large_as_the_picture_shrinks(office: Desk) -> None:
    """--sl 1 asks for a logo that covers the picture: the next smaller one fits the retina."""
    outcome = office.lock(office.eyes("src", 1), office / "out", "--sl", "1")
    assert outcome.code == 0, outcome.err
    (frame,) = record_of(office / "out")["instances"][0]["frames"]
    assert frame["logo_size"] == [128, 128]


def test_a_logo_too_fine_for_the_picture_locks_nothing(office: Desk) -> None:
    """A hairline that scaling leaves nothing of is refused, and named an unusable logo."""
    dot = Image.new("RGBA", (2500, 2500))
    dot.putpixel((0, 0), (255, 0, 0, 255))
    stream = io.BytesIO()
    dot.save(stream, "PNG")
    logo = office.put("logo.png", stream.getvalue())
    source = office.eyes("src", 1) / "eye0.dcm"
    outcome = office.lock(source, office / "out", "--logo", logo)
    assert (outcome.code, len(outcome.errors)) == (5, 1)
    assert results(office / "out") == set()


def _change_weights(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _replace_weights(bundle: Path) -> None:
    data = b"no pickle"
    (bundle / "models" / "model.pt").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    metadata = bundle / "configs" / "metadata.json"
    edit_json(metadata, lambda one: one["medlocker"].update(weights_sha256=digest))


def _replace_network(bundle: Path) -> None:
    path = bundle / "configs" / "inference.json"
    edit_json(path, lambda one: one["network_def"].update(_target_="os.system"))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (shutil.rmtree, "no bundle named"),
    "weights gone": (lambda b: (b / "models" / "model.pt").unlink(), "no weights"),
    "weights changed": (_change_weights, "SHA-256 is"),
    "weights replaced": (_replace_weights, "do not load"),
    "metadata cut": (
        lambda b: os.truncate(b / "configs" / "metadata.json", 40),
        "not readable as JSON",
    ),
    "another network": (_replace_network, "not allowed"),
}


@pytest.mark.parametrize("which", ["dr_classifier_tiny", "lesion_segmenter"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_bundle_that_cannot_be_trusted_locks_nothing(
    office: Desk, tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch, which: str, how: str
) -> None:
    """Missing, damaged or not what its digest says: exit code 6, and no folder made."""
    breaks, words = BROKEN[how]
    shutil.copytree(tiny_bundles, office / "models")
    breaks(office / "models" / which)
    monkeypatch.setenv("MEDLOCKER_BUNDLES", str(office / "models"))
    outcome = office.lock(office.eyes("src", 1), office / "out")
    assert (outcome.code, len(outcome.errors)) == (6, 1)
    assert words in outcome.errors[0]
    assert which in outcome.errors[0]
    assert not (office / "out").exists()


def test_a_bundle_of_the_wrong_kind_locks_nothing(office: Desk) -> None:
    """A segmenter is no classifier."""
    source = office.eyes("src", 1)
    outcome = office.run(
        "lock", source, office / "out", "--to", office.public("alice"),
        "--models", "lesion_segmenter",
    )  # fmt: skip
    assert (outcome.code, len(outcome.errors)) == (6, 1)
    assert not (office / "out").exists()


def test_no_models_at_all_locks_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no bundle is found the error says where was looked and what to do."""
    from medlocker_dicom.bundles import bundle  # noqa: PLC0415  to hide the shipped ones

    monkeypatch.setattr(bundle, "SHIPPED", desk / "nowhere")
    to = ("--to", desk.public("alice"))
    outcome = desk.run("lock", desk.eyes("src", 1), desk / "out", *to)
    assert (outcome.code, len(outcome.errors)) == (6, 1)
    assert str(desk / "nowhere") in outcome.errors[0]
    assert "--bundles" in outcome.err
    assert not (desk / "out").exists()


@pytest.mark.parametrize("target", ["src/out", "src", "."])
def test_a_destination_in_its_source_is_refused(office: Desk, target: str) -> None:
    """Nothing is written into the source or around it."""
    office.eyes("src", 1)
    before = tree(office / "src")
    outcome = office.lock(office / "src", office / target)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert tree(office / "src") == before
    assert not (office / "lock.json").exists()


def test_a_destination_with_other_files_is_refused(office: Desk) -> None:
    """What lies there stays, and nothing joins it."""
    office.put("out/thesis.doc", b"x")
    outcome = office.lock(office.eyes("src", 1), office / "out")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "not empty" in outcome.errors[0]
    assert tree(office / "out") == {"thesis.doc"}


@pytest.mark.parametrize(
    "more", [("--seed", "5"), ("--mode", "anywhere"), ("--sl", "5"), ("--to", "bob.key.pub")]
)
def test_a_destination_of_another_run_is_refused(office: Desk, more: tuple[str, str]) -> None:
    """Other options or recipients do not mix with a run that began differently."""
    office.public("bob")
    assert office.lock(office.eyes("src", 1), office / "out").code == 0
    before = {path: (office / "out" / path).read_bytes() for path in tree(office / "out")}
    value = office / more[1] if more[0] == "--to" else more[1]
    outcome = office.lock(office / "src", office / "out", more[0], value)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "other options" in outcome.errors[0]
    assert {path: (office / "out" / path).read_bytes() for path in tree(office / "out")} == before


def test_another_source_of_equal_names_is_refused(office: Desk) -> None:
    """Files of the same names from elsewhere are not taken as done."""
    assert office.lock(office.eyes("src", 1), office / "out").code == 0
    office.eye("other/eye0.dcm", 1)
    outcome = office.lock(office / "other", office / "out")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "another source" in outcome.errors[0]


@pytest.mark.parametrize("target", ["file", "file/out", "file/a/out"])
def test_a_destination_that_cannot_be_a_folder_is_refused(office: Desk, target: str) -> None:
    """A file in its place, or above it: one error that names it."""
    office.put("file", b"x")
    outcome = office.lock(office.eyes("src", 1), office / target)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "cannot be written" in outcome.errors[0]
    assert (office / "file").read_bytes() == b"x"


@pytest.fixture
def closed() -> Iterator[Path]:
    """Give a folder, with a file, that may be read and not written: root is given up for it."""
    with unprivileged() as folder:
        (folder / "file").write_bytes(b"x")
        (folder / "dst").mkdir(mode=0o555)
        folder.chmod(0o555)
        yield folder


def test_a_destination_that_may_not_be_written_is_refused(closed: Path) -> None:
    """No permission: one error, nothing written."""
    reader = Identity.generate()
    for target in (closed / "dst", closed / "dst" / "out"):
        with pytest.raises(DestinationError, match="Permission denied"):
            next(unlock_folder(closed / "file", target, Keys(reader, ())))
    assert tree(closed) == {"file"}


@pytest.mark.parametrize("path", ["absent", "empty"])
def test_nothing_to_lock_is_an_error(office: Desk, path: str) -> None:
    """A source that is not there or holds nothing is named; no folder is made."""
    (office / "empty").mkdir()
    outcome = office.lock(office / path, office / "out")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert path in outcome.errors[0]
    assert not (office / "out").exists()


def test_a_recipient_is_required(office: Desk) -> None:
    """A lock that nobody can open is not made."""
    outcome = office.run("lock", office.eyes("src", 1), office / "out", *QUICK)
    assert outcome.code == 2
    assert "--to" in outcome.err
    assert not (office / "out").exists()

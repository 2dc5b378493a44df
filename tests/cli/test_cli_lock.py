"""Transcripts of medlocker lock."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from desk import QUICK, Desk, eye_pixels, granted, record_of, results, same_pixels, tree
from factories import make_fundus
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.evaluation.attacks import QUICK as QUICK_ATTACKS
from medlocker_dicom.keyfile import load_keyfile


def test_a_lock_run_leaves_what_it_says(archive: Desk) -> None:
    """Locked files of the same names, a key file a recipient named after the key, two reports."""
    assert tree(archive / "locked") == {
        ".medlocker-journal",
        "eye0.dcm",
        "eye1.dcm",
        "keys/alice.mlkey",
        "keys/bob.mlkey",
        "keys/custodian.mlkey",
        "lock.json",
        "report.html",
    }


def test_each_key_file_is_for_its_recipient(archive: Desk) -> None:
    """Signed by the issuer, addressed to the one it is named after, a grant for each instance."""
    issuer = archive.identity("issuer").public
    locked = {read_locked(archive / "locked" / f"eye{n}.dcm").ds.SOPInstanceUID for n in (0, 1)}
    for name in ("alice", "bob", "custodian"):
        keyfile = load_keyfile((archive / "locked" / "keys" / f"{name}.mlkey").read_bytes())
        identity = archive.identity(name)
        assert keyfile.issuer == issuer
        assert keyfile.recipient == identity.public.id
        assert {grant.locked_uid for grant in keyfile.grants} == locked


def test_lock_json_agrees_with_the_files(archive: Desk) -> None:
    """UIDs, sizes, probabilities and what `flipped` says fit the files and each other."""
    record = record_of(archive / "locked")
    assert record["policy"]["mode"] == "avoid"
    assert [model["name"] for model in record["models"]] == ["dr_classifier_tiny"]
    assert [one["path"] for one in record["instances"]] == ["eye0.dcm", "eye1.dcm"]
    assert record["failed"] == []
    for instance in record["instances"]:
        locked = read_locked(archive / "locked" / instance["path"])
        assert instance["locked_sop_instance_uid"] == locked.ds.SOPInstanceUID
        assert instance["source_sop_instance_uid"] == locked.source_uid
        assert instance["study_instance_uid"] == locked.ds.StudyInstanceUID
        (frame,) = instance["frames"]
        x, y, alpha = frame["placement"]
        width, height = frame["logo_size"]
        assert 0 <= x <= 160 - width
        assert 0 <= y <= 160 - height
        assert 100 <= alpha <= 255
        assert 1 <= frame["queries"] <= 12
        (model,) = frame["models"]
        for state in ("clean", "locked"):
            assert sum(model[state]) == pytest.approx(1)
            assert record["labels"][int(np.argmax(model[state]))] == frame[f"{state}_grade"]
        assert frame["flipped"] == (frame["clean_grade"] != frame["locked_grade"])
        assert frame["label"] == frame["clean_grade"]
        assert not frame["label_given"]


def test_opacities_are_searched_by_default(office: Desk) -> None:
    """With more passes than the places need, the logo's parts differ; all comes back."""
    office.eyes("src", 1)
    models = ("--models", "dr_classifier_tiny", "--budget", "60")
    office.good("lock", office / "src", office / "out", "--to", office.public("alice"), *models)
    record = record_of(office / "out")
    assert record["policy"]["strategy"] == "alpha-list"
    assert record["policy"]["look"] == "solid,own,3"
    (frame,) = record["instances"][0]["frames"]
    assert frame["queries"] == 24  # two fifths go to the place
    assert 32 + 3 + 3 <= frame["forward_passes"] <= 60
    assert record["policy"]["legibility"] <= frame["legibility"] < 1
    seen = f"{100 * frame['legibility']:.0f} % of the strokes seen"
    assert seen in (office / "out" / "report.html").read_text()
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    assert same_pixels(office / "src" / "eye0.dcm", office / "back" / "eye0.dcm")


def test_only_the_placement_differs_from_the_original(archive: Desk) -> None:
    """Locked pixels are the original's outside of the logo's window, and not within."""
    for instance in record_of(archive / "locked")["instances"]:
        locked = read_locked(archive / "locked" / instance["path"]).pixels[0]
        original = eye_pixels(int(instance["path"][3]))[0]
        (frame,) = instance["frames"]
        x, y, _ = frame["placement"]
        width, height = frame["logo_size"]
        apart = (locked != original).any(axis=2)
        assert apart[y : y + height, x : x + width].any()
        apart[y : y + height, x : x + width] = False
        assert not apart.any()


class Links(HTMLParser):
    """Collects what a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [v or "" for k, v in attrs if k in {"src", "href", "srcset", "data"}]


def test_the_report_needs_nothing_beside_it(archive: Desk) -> None:
    """No address in it leads out, and no script runs: pictures are within."""
    page = (archive / "locked" / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert len(links.found) == 2
    assert all(one.startswith("data:image/jpeg;base64,") for one in links.found)
    assert not links.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?:|url\(|@import", page)


def test_the_report_shows_locked_pictures_alone(archive: Desk) -> None:
    """Each thumbnail is near the locked picture under the logo, and far from the original."""
    import base64  # noqa: PLC0415  this test alone

    import cv2  # noqa: PLC0415  the same

    page = (archive / "locked" / "report.html").read_text()
    pictures = re.findall(r'base64,([^"]+)"', page)
    for number, (picture, instance) in enumerate(
        zip(pictures, record_of(archive / "locked")["instances"], strict=True)
    ):
        data = np.frombuffer(base64.b64decode(picture), np.uint8)
        shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert shown is not None
        (frame,) = instance["frames"]
        x, y, _ = frame["placement"]
        width, height = frame["logo_size"]
        window = np.s_[y : y + height, x : x + width]
        locked = read_locked(archive / "locked" / instance["path"]).pixels[0]
        to_locked, to_original = (
            np.abs(shown[window][..., ::-1].astype(int) - one[window]).mean()
            for one in (locked, eye_pixels(number)[0])
        )
        assert to_locked < to_original / 2


def test_the_report_is_safe_from_file_names(office: Desk) -> None:
    """Markup in file names is text; a name that is no UTF-8 stops nothing."""
    office.eye("src/<script>alert(1)<script>.dcm", 0)
    strange = office.root / "src" / Path("no-utf8-\udcff.dcm")
    strange.write_bytes(office.eye("other.dcm", 1).read_bytes())
    outcome = office.lock(office / "src", office / "out")
    assert outcome.code == 0, outcome.err
    page = (office / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "no-utf8-" in page
    assert len(record_of(office / "out")["instances"]) == 2
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    assert same_pixels(strange, office.root / "back" / strange.name)


def test_folders_keep_their_shape(office: Desk) -> None:
    """Locked and unlocked files have the paths that their sources had."""
    office.eye("src/a/b/one", 0)
    office.eye("src/two.dcm", 1)
    assert office.lock(office / "src", office / "out").code == 0
    assert results(office / "out") == {"a/b/one", "two.dcm"}
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    assert results(office / "back") == {"a/b/one", "two.dcm"}
    assert same_pixels(office / "src" / "a" / "b" / "one", office / "back" / "a" / "b" / "one")


def test_a_line_an_item_where_there_is_no_terminal(office: Desk) -> None:
    """Each file has a line with its number, its state, the grades and the queries."""
    outcome = office.lock(office.eyes("src", 2), office / "out")
    lines = [line for line in outcome.err.splitlines() if line[0].isdigit()]
    assert re.fullmatch(r"1/2 locked eye0\.dcm \(\d -> \d, \d+ queries\)", lines[0])
    assert re.fullmatch(r"2/2 locked eye1\.dcm \(\d -> \d, \d+ queries\)", lines[1])
    told, advice = outcome.out.splitlines()
    assert told == f"2 locked, 0 failed: {office / 'out' / 'report.html'}"
    assert "keep report.html, lock.json and the journal" in advice


def test_json_prints_the_record(office: Desk) -> None:
    """--json gives lock.json, whole and alone, on the standard output."""
    outcome = office.lock(office.eyes("src", 1), office / "out", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == record_of(office / "out")


def test_one_file_is_a_source(office: Desk) -> None:
    """A file may be locked alone, into a folder beside it; a second one joins it there."""
    office.eyes("src", 2)
    first = office.lock(office / "src" / "eye0.dcm", office / "src" / "out")
    assert first.code == 0, first.err
    assert results(office / "src" / "out") == {"eye0.dcm"}
    second = office.lock(office / "src" / "eye1.dcm", office / "src" / "out")
    assert second.code == 0, second.err
    assert len(granted(office / "src" / "out")) == 2


def test_equal_runs_give_equal_locks(office: Desk) -> None:
    """The same source, issuer, seed and models: the same UIDs and pixels, in any folder."""
    office.eyes("src", 1)
    for name in ("one", "two"):
        assert office.lock(office / "src", office / name).code == 0
    one, two = (read_locked(office / name / "eye0.dcm") for name in ("one", "two"))
    assert one.ds.SOPInstanceUID == two.ds.SOPInstanceUID
    assert np.array_equal(one.pixels, two.pixels)
    other = office.lock(office / "src", office / "three", "--issuer", office.person("carol"))
    assert other.code == 0
    three = read_locked(office / "three" / "eye0.dcm")
    assert three.ds.SOPInstanceUID != one.ds.SOPInstanceUID


def test_an_issuer_is_made_once(office: Desk) -> None:
    """Without --issuer a private one is made for this user, said so, and used ever after."""
    first = office.lock(office.eyes("src", 1), office / "one")
    path = office / "config" / "medlocker" / "issuer.key"
    assert f"made {path}" in first.err
    assert path.stat().st_mode & 0o777 == 0o600
    made = path.read_bytes()
    second = office.lock(office / "src", office / "two")
    assert "made " not in second.err
    assert path.read_bytes() == made


def test_a_logo_drawn_in_dots(office: Desk) -> None:
    """It covers less than as it is, and comes off exactly."""
    source, more = office.eyes("src", 1), ("--issuer", office.person("issuer"), "--sl", "2")
    changed = {}
    before = dcmread(source / "eye0.dcm").pixel_array
    for name, look in (("solid", "solid"), ("dotted", "dotted,dark-red,20")):
        assert office.lock(source, office / name, *more, "--look", look).code == 0
        after = dcmread(office / name / "eye0.dcm").pixel_array
        changed[name] = int((before != after).any(-1).sum())
        assert office.unlock(office / name, office / f"{name}-back", "alice").code == 0
        assert same_pixels(source / "eye0.dcm", office / f"{name}-back" / "eye0.dcm")
    assert 0 < changed["dotted"] < 0.7 * changed["solid"]


@pytest.mark.parametrize("codec", ["rle", "jpegls", "j2k"])
def test_compressed_locks_unlock_bit_by_bit(office: Desk, codec: str) -> None:
    """Whatever the locked pixels are written as, the original comes back."""
    office.eyes("src", 1)
    assert office.lock(office / "src", office / "out", "--codec", codec).code == 0
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    assert same_pixels(office / "src" / "eye0.dcm", office / "back" / "eye0.dcm")


def test_frames_and_deep_pixels_are_locked(office: Desk) -> None:
    """Two frames, and 16-bit grey: each locked, reported, and given back bit by bit."""
    frames = np.concatenate([eye_pixels(0), eye_pixels(1)])
    office.put("src/frames.dcm", to_bytes(make_fundus(frames, instance_uid="1.2.3.1")))
    deep = eye_pixels(2)[..., :1].astype(np.uint16) * 257
    office.put("src/deep.dcm", to_bytes(make_fundus(deep, instance_uid="1.2.3.2")))
    outcome = office.lock(office / "src", office / "out")
    assert outcome.code == 0, outcome.err
    assert re.search(r"frames\.dcm \(\d of 2 frames turned, \d+ queries\)", outcome.err)
    counts = [len(one["frames"]) for one in record_of(office / "out")["instances"]]
    assert counts == [1, 2]
    assert "frame 2" in (office / "out" / "report.html").read_text()
    assert office.unlock(office / "out", office / "back", "alice").code == 0
    for name in ("frames.dcm", "deep.dcm"):
        assert same_pixels(office / "src" / name, office / "back" / name)


def test_attacks_are_told_in_the_report(office: Desk) -> None:
    """With --attack each frame, grey and deep ones too, says what is restored and what undoes it.

    Without, nothing is said of it; and it is the same lock.
    """
    office.eyes("src", 2)
    deep = eye_pixels(2)[..., :1].astype(np.uint16) * 257
    office.put("src/deep.dcm", to_bytes(make_fundus(deep, instance_uid="1.2.3.2")))
    issuer = ("--issuer", office.person("issuer"))
    assert office.lock(office / "src", office / "out", *issuer, "--attack").code == 0
    assert office.lock(office / "src", office / "plain", *issuer).code == 0
    attacked, plain = (
        [f for one in record_of(office / name)["instances"] for f in one["frames"]]
        for name in ("out", "plain")
    )
    for frame, same in zip(attacked, plain, strict=True):
        told = frame.pop("attacks")
        assert frame == same
        assert 5 < told["psnr"] < 60
        assert (told["undone_by"] is None) == (not frame["flipped"])
        assert set(told["undone_by"] or ()) <= set(QUICK_ATTACKS)
    report = (office / "out" / "report.html").read_text()
    assert report.count("Without the key, the best that is restored") == 3
    assert report.count("Undone by: ") == sum(frame["flipped"] for frame in attacked) > 0
    assert "still so after all quick attacks" in report
    assert "Without the key" not in (office / "plain" / "report.html").read_text()


@pytest.mark.parametrize(
    ("table", "given"),
    [
        ("file,grade\neye0.dcm,4\n", [True, False]),
        ("uid,grade\n1.2.826.0.1.3680043.10.9.2,0\n", [False, True]),
        ("\ufefffile,grade,remark\r\neye0.dcm,1,blurred\r\neye1.dcm,3,\r\n", [True, True]),
        ("file,grade\nabsent.dcm,1\n", [False, False]),
    ],
)
def test_labels_tell_the_true_grades(office: Desk, table: str, given: list[bool]) -> None:
    """By file name or UID, as spreadsheets write them; who has none keeps the models' own."""
    labels = office.put("labels.csv", table.encode())
    outcome = office.lock(office.eyes("src", 2), office / "out", "--labels", labels)
    assert outcome.code == 0
    unused = [] if any(given) else ["absent.dcm"]
    assert record_of(office / "out")["labels_unused"] == unused
    assert ("label of no locked file: absent.dcm" in outcome.err) == bool(unused)
    frames = [one["frames"][0] for one in record_of(office / "out")["instances"]]
    assert [frame["label_given"] for frame in frames] == given
    rows = [line.split(",") for line in table.splitlines()[1:]]
    told = [row[1] for row in rows if not row[0].startswith("absent")]
    assert [frame["label"] for frame in frames if frame["label_given"]] == told


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("eye0.dcm,4\n", "labels.csv"),
        ("file,grade\neye0.dcm,5\n", "labels.csv, line 2"),
        ("file,grade\neye0.dcm,4\neye1.dcm,\n", "labels.csv, line 3"),
        ("file,grade\neye0.dcm,-1\n", "labels.csv, line 2"),
        ("file,grade\neye0.dcm," + "9" * 5000 + "\n", "labels.csv, line 2"),
        ("file,grade\neye0.dcm," + "0" * 5001 + "\n", "labels.csv, line 2"),
        ("file,grade\neye0.dcm,000000000999\n", "labels.csv, line 2"),
        ("file,grade\neye0.dcm,1\neye1.dcm,2\neye0.dcm,3\n", "labels.csv, line 4: eye0.dcm has"),
        ("name,grade\neye0.dcm,1\n", "labels.csv"),
        ("file,grade\n,1\n", "labels.csv, line 2"),
        ("file,grade\n\xff,1\n", "labels.csv"),
    ],
    ids=[
        "no-header",
        "too-high",
        "empty",
        "negative",
        "huge",
        "zeros",
        "padded",
        "contradiction",
        "column",
        "no-file",
        "latin-1",
    ],
)
def test_bad_labels_lock_nothing(office: Desk, table: str, where: str) -> None:
    """A table that cannot be believed is refused by file and line before anything is done."""
    labels = office.put("labels.csv", table.encode("latin-1"))
    outcome = office.lock(office.eyes("src", 2), office / "out", "--labels", labels)
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert where in outcome.errors[0]
    assert not (office / "out").exists()


def test_other_labels_are_another_run(office: Desk) -> None:
    """A destination that was begun with other labels is refused: its locks are not these."""
    eyes, labels = office.eyes("src", 1), office.put("labels.csv", b"file,grade\neye0.dcm,4\n")
    assert office.lock(eyes, office / "out").code == 0
    outcome = office.lock(eyes, office / "out", "--labels", labels)
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "holds a run with" in outcome.errors[0]


def test_names_of_results_are_refused_first(office: Desk) -> None:
    """A photograph where the key files' folder belongs: one error, and nothing is made."""
    eyes = office.eyes("src", 2)
    (eyes / "eye1.dcm").rename(eyes / "keys")
    outcome = office.lock(eyes, office / "out")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert "keys: has the name of something that locking writes" in outcome.errors[0]
    assert not (office / "out").exists()


def test_one_recipient_is_named_once(office: Desk) -> None:
    """The same key twice, or two keys of one file name, are refused."""
    office.eyes("src", 1)
    alice = office.public("alice")
    copy = office.put("copy.pub", alice.read_bytes())
    namesake = office.put("other/alice.key.pub", office.public("bob").read_bytes())
    for second, why in ((copy, "given twice"), (namesake, "called alice is there already")):
        outcome = office.lock(office / "src", office / "out", "--to", second)
        assert (outcome.code, len(outcome.errors)) == (2, 1)
        assert why in outcome.errors[0]
    assert not (office / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--mode", "sideways", 2),
        ("--strategy", "guess", 2),
        ("--codec", "gif", 2),
        ("--budget", "0", 2),
        ("--sl", "0.5", 2),
        ("--look", "striped", 2),
        ("--seed", "-1", 2),
        ("--to", "absent.pub", 7),
        ("--custodian", "absent.pub", 7),
        ("--issuer", "absent.key", 7),
        ("--logo", "absent.png", 5),
        ("--labels", "absent.csv", 2),
    ],
)
def test_unusable_options_lock_nothing(office: Desk, option: str, value: str, code: int) -> None:
    """Each option that cannot be used is refused before the destination is made."""
    office.eyes("src", 1)
    given = office / value if "." in value and value[0].isalpha() else value
    outcome = office.lock(office / "src", office / "out", option, given)
    assert outcome.code == code
    assert (option if code == 2 and value[-1].isdigit() else value) in outcome.err
    assert not (office / "out").exists()


def test_a_private_key_is_no_recipient(office: Desk) -> None:
    """A private key given for a public one is refused, and nothing of it is repeated."""
    office.eyes("src", 1)
    private = office.person("alice")
    outcome = office.run("lock", office / "src", office / "out", "--to", private, *QUICK)
    assert (outcome.code, len(outcome.errors)) == (7, 1)
    assert "not a public key" in outcome.errors[0]
    assert json.loads(private.read_bytes())["secret"] not in outcome.err
    assert not (office / "out").exists()

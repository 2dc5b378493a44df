"""Transcripts of medlocker inspect, bundles and the top of the command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

import medlocker_dicom
from desk import QUICK, Desk, edit_json
from factories import make_fundus
from medlocker_dicom.dicom.private import GROUP
from medlocker_dicom.dicom.writing import to_bytes

THINGS: dict[str, tuple[Callable[[Desk], Path], str, str]] = {
    "locked": (lambda a: a / "locked" / "eye0.dcm", "locked photograph", "issuer_key"),
    "source": (lambda a: a / "src" / "eye0.dcm", "fundus photograph, not locked", "size"),
    "key file": (lambda a: a / "locked" / "keys" / "bob.mlkey", "key file", "recipient"),
    "identity": (lambda a: a / "alice.key", "identity (private key)", "fingerprint"),
    "public key": (lambda a: a / "alice.key.pub", "public key", "fingerprint"),
}


@pytest.mark.parametrize("name", THINGS)
def test_inspect_says_what_a_thing_is(archive: Desk, name: str) -> None:
    """The first line says what it is; --json says the same as the words."""
    where, what, member = THINGS[name]
    facts = json.loads(archive.good("inspect", where(archive), "--json").out)
    assert facts["what"] == what
    assert facts[member]
    words = archive.good("inspect", where(archive)).out.splitlines()
    assert words[0].split(None, 1) == ["what", what]
    assert len(words) == len(facts)


def test_inspect_tells_nothing_secret(archive: Desk) -> None:
    """Of a private key file only the public half is shown."""
    secret = json.loads((archive / "alice.key").read_bytes())["secret"]
    outcome = archive.good("inspect", archive / "alice.key", "--json")
    assert secret[:20] not in outcome.out
    assert archive.identity("alice").public.fingerprint in outcome.out


def test_inspect_agrees_with_the_files(archive: Desk) -> None:
    """UIDs, sizes and fingerprints are the ones in the files."""
    locked = pydicom.dcmread(archive / "locked" / "eye0.dcm")
    facts = json.loads(archive.good("inspect", archive / "locked" / "eye0.dcm", "--json").out)
    source = pydicom.dcmread(archive / "src" / "eye0.dcm")
    assert facts["locked_sop_instance_uid"] == locked.SOPInstanceUID
    assert facts["source_sop_instance_uid"] == source.SOPInstanceUID
    assert facts["size"].startswith("160 x 160 px, 1 frames, 8 bits")
    assert facts["issuer_key"] == archive.identity("issuer").public.verify_key.hex()
    key = json.loads(
        archive.good("inspect", archive / "locked" / "keys" / "bob.mlkey", "--json").out
    )
    assert key["recipient"] == archive.identity("bob").public.fingerprint
    assert key["grants"] == 2
    assert key["expires"] == ["never"]


def test_inspect_sees_a_stripped_packet(archive: Desk, desk: Desk) -> None:
    """A lock without its packet is called so: it cannot be unlocked any more."""
    ds = pydicom.dcmread(archive / "locked" / "eye0.dcm")
    for tag in [one.tag for one in ds if one.tag.group == GROUP]:
        del ds[tag]
    ds.save_as(desk / "stripped.dcm")
    assert "recovery packet was stripped" in desk.good("inspect", desk / "stripped.dcm").out


def test_inspect_shows_a_bundle(archive: Desk, tiny_bundles: Path) -> None:
    """A bundle's network, labels and verified digest."""
    outcome = archive.good("inspect", tiny_bundles / "dr_classifier_tiny")
    assert "monai.networks.nets.Classifier" in outcome.out
    assert "(verified)" in outcome.out
    assert "0, 1, 2, 3, 4" in outcome.out


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"validation": {"kappa": 0.8, "n": 60}}, "kappa 0.8, n 60"),
        ({"kappa": 0.8}, "0.8"),
        ([], ""),
    ],
    ids=["table", "value", "list"],
)
def test_inspect_shows_figures(desk: Desk, tiny_bundles: Path, figures: object, words: str) -> None:
    """A bundle's evaluation is shown, whatever its author made of it."""
    shutil.copytree(tiny_bundles / "dr_classifier_tiny", desk / "b")
    metadata = desk / "b" / "configs" / "metadata.json"
    edit_json(metadata, lambda one: one.update(eval_metrics=figures))
    assert words in desk.good("inspect", desk / "b").out


def test_inspect_shows_a_bundles_words_as_text(desk: Desk, tiny_bundles: Path) -> None:
    """Escape sequences and lone surrogates in a bundle's metadata come out as text."""
    shutil.copytree(tiny_bundles / "dr_classifier_tiny", desk / "b")
    metadata = desk / "b" / "configs" / "metadata.json"
    words = {"version": "\x1b]0;owned\x07\ud800", "eval_metrics": {"x\x1b[31m": {"a\nb": 1}}}
    edit_json(metadata, lambda one: one.pop("version", None))
    record = json.loads(metadata.read_bytes()) | words
    metadata.write_text(json.dumps(record))
    outcome = desk.good("inspect", desk / "b")
    assert "\\x1b]0;owned\\x07\\xd800" in outcome.out
    assert "on x\\x1b[31m" in outcome.out
    assert "a\\x0ab 1" in outcome.out
    assert "\x1b" not in outcome.out


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 4),
        (b"Dear colleague", 4),
        (b"{}", 7),
        (b"{" * 5000, 7),
        (b'{"format":"medlocker identity"}', 7),
        (b"medlocker", 7),
        (b"medlocker-public 1 x y\n", 7),
    ],
    ids=range(7),
)
def test_inspect_names_what_it_does_not_know(desk: Desk, data: bytes, code: int) -> None:
    """Anything else: one error that names the file."""
    path = desk.put("thing", data)
    outcome = desk.run("inspect", path)
    assert (outcome.code, len(outcome.errors)) == (code, 1)
    assert str(path) in outcome.errors[0]
    assert outcome.out == ""


def test_inspect_of_a_damaged_photograph_is_an_error(archive: Desk, desk: Desk) -> None:
    """Wrong SOP class, cut, or without Rows: no traceback, and the file is named."""
    whole = (archive / "locked" / "eye0.dcm").read_bytes()
    desk.put("cut.dcm", whole[:-7])
    ds = make_fundus()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    desk.put("ct.dcm", to_bytes(ds))
    for name in ("cut.dcm", "ct.dcm"):
        outcome = desk.run("inspect", desk / name)
        assert (outcome.code, len(outcome.errors)) == (4, 1)
        assert name in outcome.errors[0]
    ds = make_fundus()
    del ds.Rows
    desk.put("no-rows.dcm", to_bytes(ds))
    assert "36 x ? px" in desk.good("inspect", desk / "no-rows.dcm").out


def test_inspect_of_nothing_is_an_error(desk: Desk) -> None:
    """A path that is not there."""
    outcome = desk.run("inspect", desk / "absent")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    (desk / "empty").mkdir()
    assert desk.run("inspect", desk / "empty").code == 6


def test_bundles_are_listed(office: Desk, tiny_bundles: Path) -> None:
    """Name, kind, input size and path of each; with --json labels and digest too."""
    lines = office.good("bundles", "list").out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["dr_classifier_tiny", "dr-classifier", "64"],
        ["lesion_segmenter", "lesion-segmenter", "128"],
    ]
    rows = json.loads(office.good("bundles", "list", "--json").out)
    assert rows[0]["labels"] == ["0", "1", "2", "3", "4"]
    assert rows[1]["path"] == str(tiny_bundles / "lesion_segmenter")


def test_a_named_folder_comes_first(office: Desk, tiny_bundles: Path) -> None:
    """--bundles wins over $MEDLOCKER_BUNDLES where both have the name."""
    shutil.copytree(tiny_bundles / "lesion_segmenter", office / "mine" / "lesion_segmenter")
    rows = json.loads(office.good("bundles", "list", "--bundles", office / "mine", "--json").out)
    assert [row["path"] for row in rows] == [
        str(tiny_bundles / "dr_classifier_tiny"),
        str(office / "mine" / "lesion_segmenter"),
    ]


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_folder_of_bundles_that_is_not_there_is_refused(
    office: Desk, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A mistyped folder is named; no other models are taken in its stead."""
    if by == "variable":
        monkeypatch.setenv("MEDLOCKER_BUNDLES", str(office / "typo"))
    more = ("--bundles", office / "typo") if by == "option" else ()
    for outcome in (
        office.run("bundles", "list", *more),
        office.lock(office.eyes("src", 1), office / "out", *more),
    ):
        assert (outcome.code, len(outcome.errors)) == (6, 1)
        assert "typo: no such folder of bundles" in outcome.errors[0]
    assert not (office / "out").exists()


def test_a_damaged_bundle_is_named(office: Desk, tiny_bundles: Path) -> None:
    """Weights that are not the ones named end the list with exit code 6."""
    shutil.copytree(tiny_bundles, office / "mine")
    edit_json(
        office / "mine" / "dr_classifier_tiny" / "configs" / "metadata.json",
        lambda one: one["medlocker"].update(weights_sha256="0" * 64),
    )
    outcome = office.run("bundles", "list", "--bundles", office / "mine")
    assert (outcome.code, len(outcome.errors)) == (6, 1)
    assert "SHA-256 is" in outcome.errors[0]


def test_the_version_is_the_packages(desk: Desk) -> None:
    """--version prints it and ends."""
    assert desk.good("--version").out == f"medlocker {medlocker_dicom.__version__}\n"


def test_help_documents_the_exit_codes(desk: Desk) -> None:
    """The codes that these tests hold are the ones that --help names."""
    words = " ".join(desk.good("--help").out.split())
    for code in ("0 done", "2 unusable", "3 some files failed", "9 results cannot", "130"):
        assert code in words


def test_what_lies_beside_locked_data(office: Desk) -> None:
    """A status list, a receipt and a detached packet are told in words; damaged ones refused."""
    office.good("vault", "init", "--no-custodian")
    lock = ("lock", office.eyes("src", 1), office / "out", "--to", office.public("alice"))
    office.good(*lock, "--detached", *QUICK)
    office.good("grant", "revoke", "--to", "alice", "--status", office / "r.mlstatus")
    office.unlock(office / "out", office / "back", "alice", "--receipt", office / "a.mlreceipt")
    (packet,) = (office / "out" / "packets").iterdir()
    for path, words in (
        (office / "r.mlstatus", ("status list", "revoked            1")),
        (office / "a.mlreceipt", ("receipt", "unlocked           1", "alice")),
        (packet, ("recovery packet, detached", packet.stem)),
        (office / "out" / "eye0.dcm", ("locked photograph", "detached")),
        (office.public("alice"), ("public key", office.identity("alice").public.words)),
    ):
        said = office.good("inspect", path).out
        for word in words:
            assert word in said, said
    for path in (office / "r.mlstatus", office / "a.mlreceipt", packet):
        path.write_bytes(path.read_bytes()[:60])
        outcome = office.run("inspect", path)
        assert outcome.code in (7, 8)
        assert len(outcome.errors) == 1
        assert str(path) in outcome.errors[0]

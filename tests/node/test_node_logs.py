"""The log says what happened, and nothing of a patient, whoever logs."""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pydicom.config
import pynetdicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config

from factories import make_fundus
from medlocker_dicom.errors import DiskFullError, NotFundusError, UIDError
from medlocker_dicom.node import library_logs, logs, own_words
from medlocker_dicom.node.config import Listen, NodeConfig
from medlocker_dicom.node.ledger import Entered, State
from medlocker_dicom.node.log_fields import FIELDS, UndeclaredError
from medlocker_dicom.node.logs import Log
from medlocker_dicom.node.receiver_admission import Caller, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

MARKS = ("Zzyzx", "ZZYZX-4711", "1.2.826.0.1.3680043.10.77")
NAME, NUMBER, STUDY = "Zzyzx^Marked", MARKS[1], f"{MARKS[2]}.1"
DESTINATION = {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242}


def configured(**log: str) -> NodeConfig:
    """Return a configuration with one destination, ``archive``, and one route, ``all``."""
    return NodeConfig.model_validate(
        {
            "spool": "spool",
            "vault": "vault.db",
            "issuer": "issuer.key",
            "destinations": {"archive": DESTINATION},
            "routes": [
                {"name": "all", "lock": {"recipients": ["alice"]}, "destinations": ["archive"]}
            ],
            "log": log,
        }
    )


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return where the log goes; everything is as before afterwards."""
    before = {name: logging.getLogger(name).handlers[:] for name in ("", "pynetdicom", "dbos")}
    levels = {name: logging.getLogger(name).level for name in ("", "pynetdicom", "dbos")}
    yield io.StringIO()
    logs.stop()
    for name, handlers in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).setLevel(levels[name])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return what was logged as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_where_and_what(stream: io.StringIO) -> None:
    """UTC, level, event, part, and each field in its form."""
    logs.start(configured(), b"secret", stream, strict=True)
    log = Log("receiver").bind(ae_title="CAMERA", address="10.0.0.7")
    log.info("object received", study=STUDY, bytes=7, outcome=Entered.NEW, status=0xA700)
    log.warning("delivery failed", destination="archive", error=ConnectionRefusedError(111, "x"))
    first, second = lines(stream)
    assert first.pop("timestamp").endswith("Z")
    assert first.pop("process")
    study = first.pop("study")
    assert len(study) == 16
    assert int(study, 16)
    assert first == {
        "event": "object received",
        "level": "info",
        "part": "receiver",
        "ae_title": "CAMERA",
        "address": "10.0.0.7",
        "bytes": 7,
        "outcome": "new",
        "status": "0xA700",
    }
    assert (second["level"], second["error"]) == ("warning", "ConnectionRefusedError ECONNREFUSED")


def test_hashes_agree_between_processes_and_differ_between_sites(stream: io.StringIO) -> None:
    """One secret, one hash; who has another secret cannot tell; plain by choice."""
    for secret, form in ((b"one", "hashed"), (b"one", "hashed"), (b"two", "hashed")):
        logs.start(configured(study_uids=form), secret, stream, strict=True)
        Log("receiver").info("object received", study=STUDY)
    logs.start(configured(study_uids="plain"), b"one", stream, strict=True)
    Log("receiver").info("object received", study=STUDY)
    first, again, other, plain = (line["study"] for line in lines(stream))
    assert first == again != other
    assert plain == STUDY


@pytest.mark.parametrize(
    "fields",
    [
        {"patient_name": NAME},
        {"destination": NAME},
        {"reason": NAME},
        {"ae_title": f"{NAME} of long"},
        {"address": NAME},
        {"error": NAME},
        {"object": NUMBER},
        {"number": NUMBER},
        {"status": NUMBER},
    ],
)
def test_what_is_not_declared_raises_in_tests(
    stream: io.StringIO, fields: dict[str, object]
) -> None:
    """An unknown field, or a text where another kind of value belongs: before set-up, too."""
    with pytest.raises(UndeclaredError):
        Log("receiver").info("object received", **fields)
    logs.start(configured(), b"secret", stream, strict=True)
    with pytest.raises(UndeclaredError):
        Log("receiver").info("object received", **fields)
    assert stream.getvalue() == ""


def test_what_is_not_declared_is_dropped_in_production(stream: io.StringIO) -> None:
    """Work goes on; the name of what was dropped is told, its value never."""
    logs.start(configured(study_uids="plain"), b"secret", stream)
    event = f"received {NAME}"
    Log("receiver").info("object received", patient_name=NAME, reason=NAME, study=NAME, tries=1)
    Log("receiver").info(event)
    Log("receiver").info("odd", **{NAME: 1})
    line, withheld, odd = lines(stream)
    assert line["dropped"] == ["patient_name"]
    assert (line["reason"], line["study"], line["tries"]) == ("(withheld)", "(withheld)", 1)
    assert withheld["event"] == "(withheld)"
    assert odd["dropped"] == ["(withheld)"]
    assert MARKS[0] not in stream.getvalue()


def test_an_event_has_to_be_a_literal(stream: io.StringIO) -> None:
    """A text that was put together is no event, even where all of it is harmless."""
    logs.start(configured(), b"secret", stream, strict=True)
    event = "object".upper()
    with pytest.raises(UndeclaredError, match="literal"):
        Log("receiver").info(event)


def test_errors_never_say_their_message(stream: io.StringIO) -> None:
    """A message may quote the object: the class alone is logged; the page says the rest."""
    logs.start(configured(), b"secret", stream, strict=True)
    for error in (
        UIDError(f"{NAME} is no UID"),
        NotFundusError(NAME),
        DiskFullError,
        KeyError(NAME),
    ):
        Log("worker").error("object held", error=error, state=State.HELD)
    assert [line["error"] for line in lines(stream)] == [
        "UIDError",
        "NotFundusError",
        "DiskFullError",
        "KeyError",
    ]


def test_a_reason_is_in_words_of_ours(stream: io.StringIO) -> None:
    """A member of an enumeration, a text of our source, or a template of it without its values."""
    logs.start(configured(), b"secret", stream)
    refused = stranger(Listen(), Caller("CAMERA", NAME, "::1"))
    assert refused is not None
    full = DiskFullError(f"/{NAME}: 17 MiB are free, 5120 MiB must be")
    for reason in (State.HELD, "forward unlocked", refused.reason, str(full), NAME, NAME * 999):
        Log("worker").info("object held", reason=reason)
    assert [line["reason"] for line in lines(stream)] == [
        "held",
        "forward unlocked",
        "called AE title is not …",
        "…: … MiB are free, … MiB must be",
        "(withheld)",
        "(withheld)",
    ]


def test_source_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads have something to say at once, and nothing was said before."""
    real, begun = own_words._read, []

    def read(folder: Path) -> Any:
        begun.append(folder)
        time.sleep(0.2)
        return real(folder)

    monkeypatch.setattr(own_words, "_read", read)
    for cached in (own_words._here, own_words._everywhere):
        cached.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(own_words.own_words, ["no such words of ours"] * 8))
    assert said == {None}
    assert len(begun) == 2


def test_what_the_receiver_says_is_declared(stream: io.StringIO) -> None:
    """Names of errors and statuses as texts; a name that no error has is none."""
    logs.start(configured(), b"secret", stream)
    log, caller = Log("receiver"), Caller("CAMERA", "NODE", "10.0.0.7")
    log.warning("object refused", status="A700", kind="DiskFullError", size=7, **vars(caller))
    log.warning("object refused", status=NAME, kind=NAME)
    first, second = lines(stream)
    assert (first["status"], first["kind"], first["size"]) == ("0xA700", "DiskFullError", 7)
    assert (first["calling_ae_title"], first["address"]) == ("CAMERA", "10.0.0.7")
    assert (second["status"], second["kind"]) == ("(withheld)", "(withheld)")


def test_text_for_a_terminal(stream: io.StringIO) -> None:
    """The same, one line an event, without JSON."""
    logs.start(configured(form="text"), b"secret", stream, strict=True)
    Log("receiver").info("object received", bytes=7)
    (line,) = stream.getvalue().splitlines()
    assert "object received" in line
    assert "bytes=7" in line


def test_libraries_say_the_words_of_their_source(stream: io.StringIO) -> None:
    """Values are left open, however they got into the text; places and errors are named."""
    logs.start(configured(), b"secret", stream, strict=True)
    log = logging.getLogger("dbos")
    log.warning(f"cannot decode {NAME} today")  # noqa: G004  as libraries do
    log.error("bad %s", NAME)
    try:
        raise ValueError(NAME)  # noqa: TRY301  to have one
    except ValueError as error:
        log.exception(error)  # noqa: TRY401  as pynetdicom does
        log.error("failed: " + NAME, exc_info=True)  # noqa: G003, G201  the same
    warnings.warn(NAME, UserWarning, stacklevel=1)
    first, second, third, fourth, last = lines(stream)
    assert first["event"] == "cannot decode … today"
    assert (first["part"], first["library"]) == ("library", "dbos")
    assert first["at"].startswith("test_node_logs.py:")
    assert second["event"] == "bad %s"
    assert third["error"] == fourth["error"] == "ValueError"
    assert last["error"] == "UserWarning"
    assert MARKS[0] not in stream.getvalue()


class _Interrupts:
    """Lets another thread go on when it is collected, in the middle of whatever goes on."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


def test_many_threads_say_something_at_once() -> None:
    """No thread's log call raises since another reads source, as Python 3.11 may in the midst."""
    sources = [str(Path(pynetdicom.__file__).with_name(name)) for name in ("acse.py", "fsm.py")]

    def speak(_: int) -> list[str]:
        library_logs._all_words.cache_clear()
        said = []
        for source in sources:
            _Interrupts()
            said.append(" ".join(library_logs.words(source, line) for line in range(1, 900)))
        return said

    alone, before = speak(0), gc.get_threshold()
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(speak, range(8)))
    finally:
        gc.set_threshold(*before)
    assert together == [alone] * 8
    assert "ACSE timeout" in alone[0]


def test_parsing_that_python_broke_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the words this once; the next call knows them."""
    source = str(Path(pynetdicom.__file__).with_name("fsm.py"))
    line = next(
        number
        for number, text in enumerate(Path(source).read_text().splitlines(), 1)
        if "State Machine received" in text
    )
    library_logs._all_words.cache_clear()
    with monkeypatch.context() as broken:
        broken.setattr(library_logs, "parse", Mock(side_effect=SystemError("depth mismatch")))
        assert library_logs.words(source, line) == "a library logs; its text is all values"
    assert library_logs.words(source, line).startswith("State Machine received an exception")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_dies_says_of_what_and_where(stream: io.StringIO) -> None:
    """An error that nobody caught is one line; its message stays unsaid."""
    logs.start(configured(), b"secret", stream, strict=True)

    def die() -> None:
        raise RuntimeError(NAME)

    hook = threading.excepthook
    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    threading.excepthook = hook
    try:
        die()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [line["error"] for line in lines(stream)][-1] == "RuntimeError"
    assert "test_node_logs.py" in lines(stream)[-1]["at"]
    assert MARKS[0] not in stream.getvalue()


def stored(ds: Dataset, port: int) -> None:
    """Send an object with pynetdicom."""
    ae = AE("CAMERA")
    ae.add_requested_context(ds.SOPClassUID, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", port, ae_title="MEDLOCKER")
    assert assoc.is_established
    assoc.send_c_store(ds)
    assoc.release()


def test_no_line_holds_the_patient(
    stream: io.StringIO, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A marked photograph comes, and fails, with pynetdicom and pydicom at their most talkative."""
    monkeypatch.setattr(pynetdicom_config, "LOG_HANDLER_LEVEL", "standard")
    logs.start(configured(), b"secret", stream, strict=True)
    pynetdicom.debug_logger()  # a handler of its own, on stderr: gets cleaned records too
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    monkeypatch.setattr(pydicom.config, "debugging", True)
    log = Log("receiver")
    said: list[str] = []

    def receive(event: evt.Event) -> int:
        ds = event.dataset
        said.append(str(ds.PatientName))
        log.info("object received", study=ds.StudyInstanceUID, instance=ds.SOPInstanceUID)
        logging.getLogger("pynetdicom").info(str(ds))  # as a handler of somebody's might
        raise ValueError(f"cannot store {ds.PatientName} {ds.PatientID}")

    ae = AE("MEDLOCKER")
    ds = make_fundus(
        patient_name=NAME, patient_id=NUMBER, study_uid=STUDY, series_uid=f"{MARKS[2]}.2"
    )
    ae.add_supported_context(ds.SOPClassUID, ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, receive)]
    )
    assert server is not None
    assert server.socket is not None
    stored(ds, server.socket.getsockname()[1])
    server.shutdown()
    errors = capfd.readouterr().err
    assert said == [NAME]
    assert "object received" in stream.getvalue()
    assert "Association Released" in errors
    for mark in MARKS:
        assert mark not in stream.getvalue() + errors


def test_a_secret_is_needed(stream: io.StringIO) -> None:
    """Hashes without a key can be found by trying UIDs."""
    with pytest.raises(ValueError, match="secret"):
        logs.start(configured(), b"", stream)


def test_every_form_is_used() -> None:
    """No form, and no field, is there without need of the other."""
    assert len(set(FIELDS.values())) == 10

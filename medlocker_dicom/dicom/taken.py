"""What a locked instance takes over from its source, and whether it still has it."""

from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

from medlocker_dicom.dicom.elements import copy_elements, text
from medlocker_dicom.dicom.modules import COLOUR, IMAGE, MONOCHROME, PATIENT, STUDY


def take_over(source: Dataset, target: Dataset, photometric: str) -> None:
    """Copy what must stay as it is in the source.

    Parameters
    ----------
    source
        A source's attributes.
    target
        The locked instance; changed in place.
    photometric
        ``RGB`` or ``MONOCHROME2``.
    """
    copy_elements(source, target, _keywords(photometric))
    if not text(source, "ImageLaterality"):  # else it must be absent (C.7.3.1)
        target.Laterality = text(source, "Laterality")


def changed_since(source: Dataset, locked: Dataset, photometric: str) -> list[str]:
    """Compare a locked instance with its source.

    Values count, not how they are encoded: an archive may write the same in
    another VR, character set or padding. No value is as good as no attribute.

    Parameters
    ----------
    source, locked
        Their attributes.
    photometric
        ``RGB`` or ``MONOCHROME2``.

    Returns
    -------
    list of str
        Keywords of the attributes that `take_over` copied and that differ now.
    """
    expected = Dataset()
    copy_elements(source, expected, ["SpecificCharacterSet"])
    take_over(source, expected, photometric)
    keywords = (*_keywords(photometric), "Laterality")
    return [k for k in keywords if _value(expected, Tag(k)) != _value(locked, Tag(k))]


def _keywords(photometric: str) -> tuple[str, ...]:
    return (*PATIENT, *STUDY, *IMAGE, *(COLOUR if photometric == "RGB" else MONOCHROME))


def _value(ds: Dataset, tag: BaseTag) -> object:
    """Return an element's value, or its bytes if they break the rules of their VR."""
    try:
        return _plain(ds[tag].value) if tag in ds else None
    except Exception:  # noqa: BLE001 - pydicom parses lazily and raises anything
        raw = ds.get_item(tag)
        # what cannot be read at all equals nothing
        return raw.value if isinstance(raw, RawDataElement) else object()


def _plain(value: Any) -> object:
    """Reduce a value to what is the same in each of its encodings; None if it is empty."""
    if isinstance(value, Dataset):
        items = {tag: _plain(value[tag].value) for tag in value.keys()}  # noqa: SIM118 - a data set iterates over elements
        return {tag: item for tag, item in items.items() if item is not None}
    if isinstance(value, str | PersonName):
        return str(value).strip(" \0") or None
    if isinstance(value, bytes):
        return value.rstrip(b"\0") or None
    if hasattr(value, "__iter__"):  # several values, or a sequence
        return [_plain(one) for one in value] or None
    return value  # a number, or None

"""Single elements of a data set, read strictly and copied byte for byte."""

from collections.abc import Iterable
from copy import deepcopy

from pydicom.datadict import dictionary_description, dictionary_VR, private_dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from medlocker_dicom.errors import PixelLayoutError


def integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    """Return the single integer of an Image Pixel element (PS3.3 C.7.6.3).

    Raises
    ------
    PixelLayoutError
        If it is absent without a default, empty, multi-valued or no integer.
    """
    name = dictionary_description(keyword)
    if keyword not in ds:
        if default is None:
            raise PixelLayoutError(f"{name} is missing")
        return default
    try:
        value = ds[keyword].value
    except Exception as exc:
        raise PixelLayoutError(f"{name} is no number") from exc
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        raise PixelLayoutError(f"{name} is not a single number")
    return int(value)


def text(ds: Dataset, keyword: str) -> str:
    """Return the single string of an element; empty if absent, unreadable or multi-valued."""
    try:
        value = ds.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom parses lazily and raises anything
        return ""
    return value.strip() if isinstance(value, str) else ""


def copy_elements(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    """Copy those of the named elements that `source` has, unchanged, into `target`."""
    tags = {Tag(keyword) for keyword in keywords}
    for tag in sorted(tags & set(source.keys())):
        target[tag] = deepcopy(_explicit(source, tag))


def as_explicit(ds: Dataset) -> Dataset:
    """Return a data set ready for Explicit VR Little Endian, values untouched.

    Elements that were never looked at stay raw bytes: a value that breaks its
    VR's rules, as real devices send, survives because nothing parses it. Group
    lengths are dropped (PS3.5 section 7.2).

    Parameters
    ----------
    ds
        Parsed from little-endian data or built in memory; not changed, save
        that pydicom may cache parsed values in it.
    """
    # not one by one: setting a private element would make pydicom parse it
    out = Dataset({tag: _explicit(ds, tag) for tag in sorted(ds.keys()) if tag.element != 0})
    mark_explicit(out, ds)
    return out


def mark_explicit(out: Dataset, like: Dataset) -> None:
    """Tell pydicom that raw elements in `out` are encoded as they are to be written."""
    out._parent_encoding = like._parent_encoding  # noqa: SLF001 - items inherit their parent's character set
    out.set_original_encoding(False, True, out._character_set)  # noqa: SLF001, FBT003 - what pydicom compares with when writing


def _explicit(ds: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """Return one element with its VR, raw if it still is."""
    element = ds.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.is_little_endian:
        # an empty value is None, which pydicom would parse when it writes
        element = element._replace(value=element.value or b"")
        if not element.is_implicit_VR and element.VR is not None:
            return element
        vr = _implicit_vr(ds, tag)
        if vr != "SQ" and " or " not in vr:
            return element._replace(VR=vr, is_implicit_VR=False)
    parsed = ds[tag]
    if parsed.VR == "SQ":
        return DataElement(tag, "SQ", Sequence(as_explicit(item) for item in parsed.value))
    return parsed


def _implicit_vr(ds: Dataset, tag: BaseTag) -> str:
    """Return the VR that the dictionaries give an element without one (PS3.5 6.2.2)."""
    if tag.is_private_creator:
        return "LO"
    try:
        if tag.is_private:
            creator = ds.get(Tag(tag.group, tag.element >> 8))
            return private_dictionary_VR(tag, str(creator.value) if creator else "")
        return dictionary_VR(tag)
    except KeyError:
        return "UN"

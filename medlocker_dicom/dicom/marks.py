"""How a locked instance says what was done to it, in DICOM's own words.

These survive tools that strip private elements, so that a stripped lock is
told apart from an instance that was never locked.
"""

from pydicom.dataset import Dataset

from medlocker_dicom.dicom.private import has_block

MANUFACTURER = "MedLocker"
MODEL = "MedLocker DICOM"
SCHEME = "99MEDLOCKER"
WATERMARK_CODE = "VAW"
WATERMARK_MEANING = "Visible adversarial watermark"


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a code sequence item (PS3.3 table 8.8-1a)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def is_locked(ds: Dataset) -> bool:
    """Tell whether `ds` is locked by us, even if its private block was stripped."""
    return has_block(ds) or _has_code(ds) or _has_equipment(ds)


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Return a sequence's items; none if it cannot be read as one."""
    try:
        return list(ds.get(keyword) or [])
    except Exception:  # noqa: BLE001 - pydicom parses lazily and raises anything
        return []


def _has_code(ds: Dataset) -> bool:
    return any(
        item.get("CodeValue") == WATERMARK_CODE and item.get("CodingSchemeDesignator") == SCHEME
        for item in _items(ds, "DerivationCodeSequence")
    )


def _has_equipment(ds: Dataset) -> bool:
    return any(
        item.get("Manufacturer") == MANUFACTURER and item.get("ManufacturerModelName") == MODEL
        for item in _items(ds, "ContributingEquipmentSequence")
    )

"""Big-endian data sets made little-endian (PS3.5 section 7.3, retired A.3)."""

import numpy as np
from pydicom.dataset import Dataset

_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def swap_words(ds: Dataset) -> Dataset:
    """Swap the bytes of every word string of a big-endian data set, nested ones too.

    pydicom converts numbers when it parses them, but hands over OW, OF, OL, OD
    and OV as they lie in the file.

    Parameters
    ----------
    ds
        Freshly parsed from big-endian data; changed in place.

    Returns
    -------
    Dataset
        The same object, marked as little-endian.
    """
    for element in ds:  # iterating parses each element
        if element.VR == "SQ":
            for item in element.value:
                swap_words(item)
        elif element.VR in _WORD_BYTES and isinstance(element.value, bytes):
            words = np.frombuffer(element.value, dtype=f">u{_WORD_BYTES[element.VR]}")
            element.value = words.astype(words.dtype.newbyteorder("<")).tobytes()
    ds.set_original_encoding(False, True, ds.original_character_set)  # noqa: FBT003 - pydicom's signature
    return ds

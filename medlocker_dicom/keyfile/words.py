"""A fingerprint as words, which are easier to compare over the telephone than letters."""

from functools import cache

from mnemonic import Mnemonic


@cache
def _list() -> Mnemonic:
    return Mnemonic("english")


def words_of(fingerprint: bytes) -> str:
    """Write a fingerprint as words.

    The list is that of BIP-39, whose 2048 words differ in their first four
    letters; the last word holds a checksum. BIP-39 writes secret seeds that way;
    these words are public.

    Parameters
    ----------
    fingerprint
        20 bytes.

    Returns
    -------
    str
        15 words with single spaces.
    """
    words: str = _list().to_mnemonic(fingerprint)
    return words

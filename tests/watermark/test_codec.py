"""The residual as bytes."""

import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medlocker_dicom.errors import PacketError
from medlocker_dicom.watermark.codec import decode_residual, encode_residual

RNG = np.random.default_rng(4)


@given(data=st.data(), largest=st.sampled_from([0, 1, 2, 3, 7, 15, 26, 255]))
def test_8_bit_residuals_come_back(data: st.DataObject, largest: int) -> None:
    """Any 8-bit residual of any shape decodes to itself."""
    shape = data.draw(array_shapes(max_dims=4, max_side=6, min_side=0))
    rest = data.draw(arrays(np.uint8, shape, elements=st.integers(0, largest)))
    back = decode_residual(encode_residual(rest), shape, 8)
    assert back.dtype == np.uint8
    assert np.array_equal(back, rest)


@given(rest=arrays(np.uint16, array_shapes(max_dims=4, max_side=6)))
def test_16_bit_residuals_come_back(rest: np.ndarray) -> None:
    """Any 16-bit residual decodes to itself."""
    back = decode_residual(encode_residual(rest), rest.shape, 16)
    assert back.dtype == np.uint16
    assert np.array_equal(back, rest)


@pytest.mark.parametrize(("largest", "bits"), [(1, 1.02), (3, 2.02), (9, 3.5), (15, 4.02)])
def test_is_close_to_the_entropy(largest: int, bits: float) -> None:
    """Uniform residuals cost about log2 of their range."""
    rest = RNG.integers(0, largest + 1, (100, 100, 3), dtype=np.uint8)
    assert 8 * len(encode_residual(rest)) / rest.size < bits


def test_is_deterministic() -> None:
    """The same residual gives the same bytes."""
    rest = RNG.integers(0, 5, (40, 40, 3), dtype=np.uint8)
    assert encode_residual(rest) == encode_residual(rest.copy())


def test_every_cut_and_extension_is_refused() -> None:
    """A truncated or extended residual never decodes."""
    for largest in (2, 200):
        data = encode_residual(RNG.integers(0, largest, (9, 9, 3), dtype=np.uint8))
        for end in range(len(data)):
            with pytest.raises(PacketError):
                decode_residual(data[:end], (9, 9, 3), 8)
        with pytest.raises(PacketError):
            decode_residual(data + b"\0", (9, 9, 3), 8)


@given(data=st.binary(max_size=60))
def test_arbitrary_bytes_give_a_residual_or_an_error(data: bytes) -> None:
    """Nothing but PacketError comes out of damaged data."""
    try:
        rest = decode_residual(data, (4, 4, 3), 8)
    except PacketError:
        return
    assert rest.shape == (4, 4, 3)


def test_other_shapes_are_refused() -> None:
    """A residual of another size, or of deeper samples, is foreign."""
    data = encode_residual(np.full((8, 8, 3), 300, np.uint16))
    with pytest.raises(PacketError, match="16-bit"):
        decode_residual(data, (8, 8, 3), 8)
    with pytest.raises(PacketError, match="exactly"):
        decode_residual(data, (8, 9, 3), 16)


def test_bombs_are_stopped_before_they_are_unpacked() -> None:
    """Little data that would unpack to a lot, and huge shapes, are refused."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23}]
    bomb = bytes([0, 8]) + lzma.compress(bytes(1 << 24), lzma.FORMAT_RAW, filters=filters)
    with pytest.raises(PacketError, match="exactly"):
        decode_residual(bomb, (8, 8, 3), 8)
    with pytest.raises(PacketError, match="out of range"):
        decode_residual(bomb, (1 << 20, 1 << 20, 3), 8)

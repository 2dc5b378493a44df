"""The logo as pixels, its digest and its packed form."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medlocker_dicom.errors import LogoError, PacketError
from medlocker_dicom.watermark.logo import Logo, pack_logo, unpack_logo
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo


@given(data=st.data())
def test_packing_is_lossless(data: st.DataObject) -> None:
    """Unpacking gives the logo pixel for pixel, hidden colours included."""
    shape = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)), 4)
    rgba = data.draw(arrays(np.uint8, shape))
    rgba[0, 0, 3] = 255
    logo = Logo(rgba)
    back = unpack_logo(pack_logo(logo), logo.width, logo.height)
    assert np.array_equal(back.rgba, rgba)
    assert back.sha256 == logo.sha256


def test_our_logo_packs_well() -> None:
    """The packet stays small: our logo on a full-size photograph is below 60 kB."""
    scaled = scale_logo(default_logo(), 4288, 2848, 4)
    packed = pack_logo(scaled)
    assert len(packed) < 60_000
    assert np.array_equal(unpack_logo(packed, scaled.width, scaled.height).rgba, scaled.rgba)


def test_digest_covers_size_and_planes() -> None:
    """Equal bytes in another shape, or one changed sample, give another digest."""
    wide = np.full((2, 6, 4), 9, np.uint8)
    changed = wide.copy()
    changed[1, 5, 3] = 8
    digests = {Logo(rgba).sha256 for rgba in (wide, wide.reshape(3, 4, 4), changed)}
    assert len(digests) == 3
    assert Logo(wide).sha256.hex().startswith("032422e3")


def test_a_logo_cannot_be_changed() -> None:
    """Neither through the object nor through the array it was made of."""
    rgba = np.full((2, 2, 4), 7, np.uint8)
    logo = Logo(rgba)
    rgba[:] = 0
    assert logo.rgba.min() == 7
    with pytest.raises(ValueError, match="read-only"):
        logo.rgba[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("rgba", "said"),
    [
        (np.zeros((2, 2, 4), np.uint8), "fully transparent"),
        (np.ones((2, 2, 3), np.uint8), r"not uint8 \(2, 2, 3\)"),
        (np.ones((2, 2, 4), np.uint16), "not uint16"),
        (np.ones((0, 2, 4), np.uint8), "2 x 0 pixels"),
        (np.ones((1, 8193, 4), np.uint8), "8193 x 1 pixels"),
    ],
)
def test_refuses_what_is_no_logo(rgba: np.ndarray, said: str) -> None:
    """Each wrong array is named in the message."""
    with pytest.raises(LogoError, match=said):
        Logo(rgba)


def test_every_cut_and_extension_is_refused() -> None:
    """A truncated or extended packed logo never unpacks."""
    data = pack_logo(Logo(np.random.default_rng(5).integers(0, 256, (5, 6, 4), dtype=np.uint8)))
    for end in range(len(data)):
        with pytest.raises(PacketError):
            unpack_logo(data[:end], 6, 5)
    with pytest.raises(PacketError):
        unpack_logo(data + b"\0", 6, 5)


@pytest.mark.parametrize("size", [(0, 1), (8193, 1), (8192, 8192), (4, 5), (2**32 - 1, 2**32 - 1)])
def test_false_sizes_are_refused(size: tuple[int, int]) -> None:
    """A size that is out of range or not the data's is refused before allocation."""
    data = pack_logo(Logo(np.full((4, 4, 4), 9, np.uint8)))
    forged = data[:4] + struct.pack(">II", *size) + data[12:]
    for width, height in ((4, 4), size[::-1]):
        with pytest.raises(PacketError):
            unpack_logo(forged, width, height)


@pytest.mark.parametrize("size", [(7, 5), (6, 4), (5, 6)])
def test_the_size_must_be_the_packets(size: tuple[int, int]) -> None:
    """A logo of another size than the packet tells is refused by its header."""
    data = pack_logo(Logo(np.full((5, 6, 4), 9, np.uint8)))
    with pytest.raises(PacketError, match="claims 6 x 5 pixels, the packet"):
        unpack_logo(data, *size)


@given(tail=st.binary(max_size=80))
def test_arbitrary_bytes_give_a_logo_or_an_error(tail: bytes) -> None:
    """Nothing but PacketError comes out of damaged data."""
    try:
        logo = unpack_logo(b"MLL1" + struct.pack(">II", 2, 2) + tail, 2, 2)
    except PacketError:
        return
    assert logo.rgba.shape == (2, 2, 4)

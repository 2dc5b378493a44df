"""Pixels: every transfer syntax and photometric interpretation, against other decoders."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from factories import make_fundus, make_pixels, save, wrap_jpeg
from medlocker_dicom.dicom.decoding import decode_pixels
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.reading import read_file

PYDICOM_FILES = [
    ("ExplVR_BigEnd.dcm", "big endian, RGB, planar 1"),
    ("GDCMJ2K_TextGBR.dcm", "JPEG 2000 lossless, YBR_RCT"),
    ("JPEGLSNearLossless_08.dcm", "JPEG-LS near-lossless, 8 bits"),
    ("JPEGLSNearLossless_16.dcm", "JPEG-LS near-lossless, 16 bits"),
    ("JPGExtended.dcm", "JPEG Extended, 12 bits"),
    ("SC_jpeg_no_color_transform.dcm", "JPEG Baseline, RGB"),
    ("SC_jpeg_no_color_transform_2.dcm", "JPEG Baseline, RGB by component letters"),
    ("SC_rgb_dcmtk_+eb+cr.dcm", "JPEG Baseline, RGB"),
    ("SC_rgb_dcmtk_+eb+cy+n1.dcm", "JPEG Baseline, YBR_FULL"),
    ("SC_rgb_dcmtk_+eb+cy+np.dcm", "JPEG Baseline, YBR_FULL_422"),
    ("SC_rgb_dcmtk_+eb+cy+s4.dcm", "JPEG Baseline, 4:4:4"),
    ("SC_rgb_gdcm_KY.dcm", "JPEG 2000 lossy, RGB"),
    ("SC_rgb_jls_lossy_line.dcm", "JPEG-LS, interleaved by line"),
    ("SC_rgb_jls_lossy_sample.dcm", "JPEG-LS, interleaved by sample"),
    ("SC_rgb_jpeg.dcm", "JPEG Baseline with JFIF, said to be RGB"),
    ("SC_rgb_jpeg_app14_dcmd.dcm", "JPEG Baseline with an Adobe marker, RGB"),
    ("SC_rgb_jpeg_dcmd.dcm", "implicit, RGB"),
    ("SC_rgb_jpeg_gdcm.dcm", "JPEG Lossless SV1, RGB"),
    ("SC_rgb_jpeg_lossy_gdcm.dcm", "JPEG Baseline, YBR_FULL"),
    ("SC_rgb_rle.dcm", "RLE, RGB"),
    ("SC_rgb_rle_16bit_2frame.dcm", "RLE, RGB, 16 bits, 2 frames"),
    ("SC_rgb_small_odd.dcm", "odd length"),
    ("SC_rgb_small_odd_big_endian.dcm", "odd length, big endian"),
    ("SC_rgb_small_odd_jpeg.dcm", "3 x 3 JPEG Baseline"),
    ("SC_ybr_full_422_uncompressed.dcm", "native YBR_FULL_422"),
    ("examples_jpeg2k.dcm", "JPEG 2000, YBR_RCT, padded with FF"),
    ("examples_overlay.dcm", "12 of 16 bits"),
    ("examples_rgb_color.dcm", "RGB"),
    ("examples_ybr_color.dcm", "JPEG Baseline, YBR_FULL_422, 30 frames"),
    ("image_dfl.dcm", "deflated"),
]


def pydicom_pixels(path: Path) -> NDArray[Any]:
    """Return pixels as pydicom decodes them with the plugins that we use."""
    ds = dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    jpeg = syntax.is_encapsulated and syntax != uid.RLELossless
    options: dict[str, Any] = {"decoding_plugin": "pylibjpeg"} if jpeg else {}
    return get_decoder(syntax).as_array(ds, **options)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of the samples' oddities
@pytest.mark.parametrize("name", [name for name, _ in PYDICOM_FILES], ids=dict(PYDICOM_FILES).get)
def test_pydicoms_files_decode_as_pydicom_does(name: str) -> None:
    """Files from many encoders give exactly pydicom's arrays."""
    path = Path(str(get_testdata_file(name)))
    decoded = decode_pixels(read_file(path))
    expected = pydicom_pixels(path)
    assert decoded.pixels.ndim == 4
    assert decoded.pixels.size == expected.size
    assert np.array_equal(decoded.pixels.reshape(expected.shape), expected)


@pytest.mark.parametrize("transform", [0, 1])
def test_adobes_marker_tells_the_colours(transform: int, tmp_path: Path) -> None:
    """Without JFIF, the transform in APP14 says RGB or YCbCr, whatever the data set declares."""
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    ycbcr = cv2.cvtColor(smooth, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    picture = Image.fromarray(smooth)
    stream = io.BytesIO()
    # Without a transform, Pillow codes the samples as they are and says so in APP14.
    coded = picture if transform == 0 else Image.fromarray(ycbcr)
    coded.save(stream, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    data = stream.getvalue()
    marker = data.index(b"\xff\xee")
    assert data[marker + 4 : marker + 9] == b"Adobe"
    data = data[: marker + 15] + bytes([transform]) + data[marker + 16 :]
    for letters, numbers in (
        (b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0"),
        (b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0"),
    ):
        assert data.count(letters) == 1
        data = data.replace(letters, numbers)
    ds = make_fundus(smooth[np.newaxis])
    ds.PixelData = encapsulate([data])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    decoded = decode_pixels(read_file(save(ds, tmp_path))).pixels[0]
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


FORMATS = [((1, 40, 36, 3), 8), ((1, 41, 37, 1), 8), ((2, 40, 36, 1), 16), ((3, 33, 47, 3), 8)]
LOSSLESS = [
    ("dcmconv", ("+ti",), uid.ImplicitVRLittleEndian),
    ("dcmconv", ("+tb",), uid.ExplicitVRBigEndian),
    ("dcmconv", ("+td",), uid.DeflatedExplicitVRLittleEndian),
    ("dcmcjpeg", ("+el",), uid.JPEGLossless),
    ("dcmcjpeg", ("+e1",), uid.JPEGLosslessSV1),
    ("dcmcjpls", ("+el",), uid.JPEGLSLossless),
    ("dcmcrle", (), uid.RLELossless),
    ("gdcmconv", ("--j2k",), uid.JPEG2000Lossless),
    ("gdcmconv", ("--jpeg",), uid.JPEGLosslessSV1),
    ("gdcmconv", ("--jpegls",), uid.JPEGLSLossless),
    ("gdcmconv", ("--planar-configuration", "1"), uid.ExplicitVRLittleEndian),
]


@pytest.mark.parametrize(("shape", "bits"), FORMATS, ids=str)
@pytest.mark.parametrize(
    ("tool", "options", "syntax"), LOSSLESS, ids=lambda v: "".join(v) if isinstance(v, tuple) else v
)
def test_what_others_encode_losslessly_comes_back(  # noqa: PLR0917 - a product of parameters
    tool: str,
    options: tuple[str, ...],
    syntax: str,
    shape: tuple[int, int, int, int],
    bits: int,
    tmp_path: Path,
    peer: Callable[[str], Callable[..., str]],
) -> None:
    """DCMTK's and GDCM's encoders give back the very samples that went in."""
    pixels = make_pixels(shape, bits)
    source, encoded = save(make_fundus(pixels), tmp_path), tmp_path / "encoded.dcm"
    peer(tool)(*options, source, encoded)
    assert dcmread(encoded).file_meta.TransferSyntaxUID == syntax
    fundus = read_fundus(encoded)
    assert np.array_equal(fundus.pixels, pixels)
    assert fundus.bits == bits
    assert fundus.pixels.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("tool", "options", "syntax"),
    [
        ("dcmcjpeg", ("+eb",), uid.JPEGBaseline8Bit),
        ("dcmcjpeg", ("+eb", "+cr"), uid.JPEGBaseline8Bit),
        ("dcmcjpeg", ("+ee",), uid.JPEGExtended12Bit),
        ("dcmcjpls", ("+en",), uid.JPEGLSNearLossless),
        ("gdcmconv", ("--j2k", "--lossy", "-q", "55"), uid.JPEG2000),
    ],
    ids=lambda v: "".join(v) if isinstance(v, tuple) else v,
)
def test_what_others_encode_with_loss_comes_close(
    tool: str,
    options: tuple[str, ...],
    syntax: str,
    tmp_path: Path,
    peer: Callable[[str], Callable[..., str]],
) -> None:
    """Lossy encodings have the right colours: nothing is swapped or left as YCbCr."""
    y, x = np.mgrid[0:64, 0:64]
    smooth = np.stack([200 - x, 60 + y, 30 + x // 2], axis=-1).astype(np.uint8)[None]
    source, encoded = save(make_fundus(smooth), tmp_path), tmp_path / "encoded.dcm"
    peer(tool)(*options, source, encoded)
    assert dcmread(encoded).file_meta.TransferSyntaxUID == syntax
    fundus = read_fundus(encoded)
    assert fundus.photometric == "RGB"
    assert np.abs(fundus.pixels.astype(int) - smooth).max() <= 12
    assert np.abs(fundus.pixels.astype(int) - smooth).mean() < 2


def test_a_wrapped_jpeg_has_its_colours(shared_data: Path) -> None:
    """A camera's JPEG decodes to what another JPEG decoder makes of it, bar rounding."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    jpeg = (shared_data / "full_resolution" / "skimage_retina_cc0.jpg").read_bytes()
    decoded = decode_pixels(wrap_jpeg(jpeg)).pixels[0]
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    difference = np.abs(decoded.astype(int) - expected)
    # chroma upsampling differs between decoders, colours must not
    assert difference.mean() < 1
    assert np.abs(decoded.mean((0, 1)) - expected.mean((0, 1))).max() < 0.2


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_both_planar_configurations_are_read(planar: int, bits: int) -> None:
    """Colour by pixel and colour by plane give the same pixels."""
    pixels = make_pixels((2, 12, 10, 3), bits)
    ds = make_fundus(pixels)
    ds.PlanarConfiguration = planar
    ds.PixelData = (pixels.transpose(0, 3, 1, 2) if planar else pixels).tobytes()
    assert np.array_equal(decode_pixels(ds).pixels, pixels)


def test_native_ybr_full_is_converted() -> None:
    """Uncompressed YBR_FULL becomes the RGB of PS3.3 C.7.6.3.1.2."""
    ybr = make_pixels((2, 300, 8, 3))  # more rows than one strip of the conversion
    ds = make_fundus(ybr)
    ds.PhotometricInterpretation = "YBR_FULL"
    assert np.array_equal(decode_pixels(ds).pixels, convert_color_space(ybr, "YBR_FULL", "RGB"))


@pytest.mark.parametrize("bits", [1, 5, 10, 12])
def test_unused_bits_are_ignored(bits: int) -> None:
    """What lies above Bits Stored, such as an overlay, is not part of a sample."""
    pixels = make_pixels((1, 9, 7, 1), bits)
    ds = make_fundus(pixels, bits)
    ds.PixelData = (pixels | pixels.dtype.type(1 << bits)).tobytes() + b"\0" * (pixels.nbytes % 2)
    decoded = decode_pixels(ds)
    assert np.array_equal(decoded.pixels, pixels)
    assert decoded.bits == bits


def make_palette(entries: NDArray[Any], indices: NDArray[Any], first: int = 0) -> FileDataset:
    """Return a PALETTE COLOR instance; `entries` is (N, 3) uint8 or uint16."""
    ds = make_fundus(indices)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    bits = 8 * entries.itemsize
    for colour, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(entries) % 65536, first, bits])
        data = np.ascontiguousarray(entries[:, colour]).tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", data + b"\0" * (len(data) % 2))
    return ds


def test_a_palette_gives_its_colours() -> None:
    """Every index becomes its table entry: those before the first and after the last, the ends'."""
    rng = np.random.default_rng(1)
    entries = rng.integers(0, 256, (100, 3), dtype=np.uint8)
    indices = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    decoded = decode_pixels(make_palette(entries, indices, first=50))
    expected = entries[np.clip(np.arange(256) - 50, 0, 99)].reshape(1, 16, 16, 3)
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.bits == 8


def test_a_palette_of_widened_colours_gives_8_bits() -> None:
    """16-bit entries that hold 8-bit colours come back as those."""
    colours = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint16)
    indices = make_pixels((2, 8, 8, 1))
    for widened in (colours << 8, colours << 8 | colours):
        decoded = decode_pixels(make_palette(widened, indices))
        assert decoded.bits == 8
        assert np.array_equal(decoded.pixels, colours[indices[..., 0]])


def test_a_palette_of_deep_colours_keeps_16_bits() -> None:
    """True 16-bit colours lose nothing, and 16-bit indices reach all entries."""
    colours = np.random.default_rng(3).integers(0, 1 << 16, (65536, 3), dtype=np.uint16)
    indices = make_pixels((1, 30, 30, 1), 16)
    decoded = decode_pixels(make_palette(colours, indices))
    assert decoded.bits == 16
    assert np.array_equal(decoded.pixels, colours[indices[..., 0]])


def test_pydicoms_palette_agrees() -> None:
    """A real palette image gives the high bytes of what pydicom looks up."""
    path = Path(str(get_testdata_file("examples_palette.dcm")))
    ds = dcmread(path)
    expected = apply_color_lut(ds.pixel_array, ds) >> 8
    decoded = decode_pixels(read_file(path))
    assert np.array_equal(decoded.pixels[0], expected)


def test_frames_in_fragments_are_joined() -> None:
    """A frame may lie in several fragments, without an offset table."""
    path = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))
    ds = read_file(path)
    whole = decode_pixels(ds).pixels
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame], fragments_per_frame=5, has_bot=False)
    assert np.array_equal(decode_pixels(ds).pixels, whole)

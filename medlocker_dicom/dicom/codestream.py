"""Headers of compressed frames, read before a decoder sees them.

Decoders allocate what the codestream asks for, and libjpeg fills up a stream
that ends early without a word. So the codestream's own idea of its size must
be the data set's, and it must be whole as far as its markers tell.
"""

import struct
from dataclasses import dataclass, replace

from medlocker_dicom.dicom.layout import Layout
from medlocker_dicom.dicom.syntaxes import Codec
from medlocker_dicom.errors import PixelLayoutError, TransferSyntaxError, TruncatedError

_END = b"\xff\xd9"  # EOI and EOC alike
_SOI, _SOC_SIZ = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"  # signature box (ISO/IEC 15444-1 I.5.1)
_SOS = 0xDA
# SOF markers: sequential, progressive, lossless Huffman; JPEG-LS
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SOF_LS = frozenset({0xF7})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_RGB_IDS = (b"RGB", b"rgb")


@dataclass(frozen=True)
class Codestream:
    """What a codestream's header says of it.

    Attributes
    ----------
    rows, columns, samples, precision
        As coded; precision in bits.
    says_rgb, says_ybr
        Whether markers name the colour space (component letters, JFIF, Adobe).
    scan
        Offset of the entropy-coded data in bytes; 0 for JPEG 2000.
    least
        Fewest bytes that these data can have.
    baseline
        Whether it is sequential JPEG with 8 bits (SOF0).
    """

    rows: int
    columns: int
    samples: int
    precision: int
    says_rgb: bool = False
    says_ybr: bool = False
    scan: int = 0
    least: int = 0
    baseline: bool = False


def inspect(frame: bytes, codec: Codec, layout: Layout) -> Codestream:
    """Read a frame's header and hold it against the data set.

    Parameters
    ----------
    frame
        One encapsulated frame, padding included; JPEG 2000 from `unwrap_jp2`.
    codec
        JPEG, JPEG-LS or JPEG 2000; RLE has no such header.
    layout
        What the data set says.

    Raises
    ------
    TruncatedError
        If the frame ends before its codestream does.
    PixelLayoutError
        If rows, columns, samples or precision are not the data set's.
    TransferSyntaxError
        If it is no codestream of that kind.
    """
    found = read_header(frame, codec)
    # padding to an even length is 00 by the standard, FF or anything in the field
    whole = frame.rstrip(b"\0\xff")
    if whole[-3:-1] == _END:
        whole = whole[:-1]
    if not whole.endswith(_END):
        raise TruncatedError(f"a {codec.value} frame ends before its end marker")
    if (found.rows, found.columns, found.samples) != (layout.rows, layout.columns, layout.samples):
        raise PixelLayoutError(
            f"a {codec.value} frame is {found.rows} x {found.columns} x {found.samples}, "
            f"the data set says {layout.rows} x {layout.columns} x {layout.samples}"
        )
    if not 1 <= found.precision <= layout.allocated:
        raise PixelLayoutError(
            f"a {codec.value} frame has {found.precision} bits, {layout.allocated} are allocated"
        )
    data = len(whole) - found.scan - len(_END)
    if data < found.least:
        raise TruncatedError(
            f"a {codec.value} frame has {data} bytes of data, too few for its "
            f"{found.rows} x {found.columns} pixels"
        )
    return found


def read_header(frame: bytes, codec: Codec) -> Codestream:
    """Read a frame's header alone; raises as `inspect`."""
    try:
        return _read_siz(frame) if codec is Codec.JPEG_2000 else _read_jpeg(frame, codec)
    except (struct.error, IndexError):
        raise TruncatedError(f"a {codec.value} frame ends within its header") from None


def unwrap_jp2(frame: bytes) -> bytes:
    """Take a JPEG 2000 codestream out of the JP2 file that some devices send (15444-1 I.4).

    The boxes around it say of the picture what they like, so a decoder must not see them.

    Returns
    -------
    bytes
        The contents of the first ``jp2c`` box; `frame` itself if it is no JP2 file.

    Raises
    ------
    TruncatedError
        If it ends before that box begins.
    TransferSyntaxError
        If its boxes contradict themselves.
    """
    if not frame.startswith(_JP2):
        return frame
    offset = 0
    try:
        while True:
            length, kind = struct.unpack_from(">L4s", frame, offset)
            value = offset + 8
            if length == 1:
                (length,) = struct.unpack_from(">Q", frame, value)
                value += 8
            end = offset + length if length else len(frame)  # 0: to the end of the file
            if end < value:
                raise TransferSyntaxError("a JPEG 2000 frame has a box shorter than its header")
            if kind == b"jp2c":
                return frame[value:end]
            offset = end
    except struct.error:
        raise TruncatedError("a JPEG 2000 frame ends before its codestream") from None


def _read_siz(frame: bytes) -> Codestream:
    """Read SIZ, which comes first (ISO/IEC 15444-1 A.5.1)."""
    if not frame.startswith(_SOC_SIZ):
        raise TransferSyntaxError("a frame is no JPEG 2000 codestream")
    columns, rows, left, top = struct.unpack_from(">4L", frame, 8)
    (samples,) = struct.unpack_from(">H", frame, 40)
    components = {frame[42 + 3 * i : 45 + 3 * i] for i in range(samples)}
    depths = {component[0] for component in components}
    if any(component[1:] != b"\1\1" for component in components) or len(depths) != 1:
        raise PixelLayoutError("a JPEG 2000 frame has components of different sizes or depths")
    depth = depths.pop()
    if depth & 0x80:
        raise PixelLayoutError("a JPEG 2000 frame has signed samples")
    return Codestream(rows - top, columns - left, samples, depth + 1)


def _read_jpeg(frame: bytes, codec: Codec) -> Codestream:
    """Walk the markers up to the first scan (ISO/IEC 10918-1 B.1, B.2; 14495-1 C.2)."""
    if frame[:2] != _SOI:
        raise TransferSyntaxError(f"a frame is no {codec.value} codestream")
    found: Codestream | None = None
    offset, jfif, adobe = 2, False, -1
    while True:
        while frame[offset] == 0xFF and frame[offset + 1] == 0xFF:
            offset += 1  # fill bytes
        marker, kind = frame[offset], frame[offset + 1]
        if marker != 0xFF or kind == 0:
            raise TransferSyntaxError(f"a {codec.value} frame has bytes where a marker belongs")
        if kind in _STANDALONE:
            offset += 2
            continue
        (length,) = struct.unpack_from(">H", frame, offset + 2)
        segment = frame[offset + 4 : offset + 2 + length]
        offset += 2 + length
        if kind == _SOS:
            break
        if kind in (_SOF if codec is Codec.JPEG else _SOF_LS):
            found = _read_sof(kind, segment)
        jfif |= 0xE0 <= kind <= 0xEF and segment.startswith(b"JFIF")
        if kind == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]  # its transform: 0 none, 1 YCbCr; JFIF wins over it
    if found is None:
        raise TransferSyntaxError(f"a {codec.value} frame has no frame header")
    rgb = found.says_rgb or (adobe == 0 and not jfif)
    return replace(found, says_rgb=rgb, says_ybr=jfif or adobe == 1, scan=offset)


def _read_sof(kind: int, segment: bytes) -> Codestream:
    precision, rows, columns, samples = struct.unpack_from(">BHHB", segment)
    specs = [segment[6 + 3 * i : 9 + 3 * i] for i in range(samples)]
    factors = [(spec[1] >> 4, spec[1] & 15) for spec in specs]
    return Codestream(
        rows,
        columns,
        samples,
        precision,
        says_rgb=bytes(spec[0] for spec in specs) in _RGB_IDS,
        least=_fewest_bytes(kind, rows * columns, factors),
        baseline=kind == 0xC0,
    )


def _fewest_bytes(kind: int, pixels: int, factors: list[tuple[int, int]]) -> int:
    """Bound the entropy-coded data from below; a Huffman code has one bit or more.

    A sequential DCT block takes two codes (DC, end of block), a lossless sample
    one. Progressive, arithmetic and JPEG-LS data have no such bound.
    """
    widest = max((h for h, _ in factors), default=0) * max((v for _, v in factors), default=0)
    if kind not in (0xC0, 0xC1, 0xC3) or not widest:
        return 0
    samples = sum(pixels * h * v // widest for h, v in factors)
    return samples // 8 if kind == 0xC3 else samples // 64 * 2 // 8

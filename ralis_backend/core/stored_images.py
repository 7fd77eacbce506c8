"""An image file -> its values as they are stored, upright: 8 bits as RGB, deeper ones by band.

Limits are checked against the header, before anything is allocated or decoded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ralis_backend.core import jpeg, jpeg2000, tiff

# Pillow also opens formats that start other programs (EPS) or that no browser shows.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 100_000_000
MAX_BYTES_PER_PIXEL = 8
"""Of the bands that are shown, as they are stored."""
_MAX_DECODED_PER_PIXEL = 2 * MAX_BYTES_PER_PIXEL
"""Of a TIFF, with the bands that are not shown and the pieces' parts beyond its edge."""
_MAX_TIMES_ITSELF = 4
_ALWAYS_DECODED = 64_000_000
"""A TIFF in pieces of so many bytes is read, however small the picture is."""

_ORIENTATION = 0x0112
_PLAIN = (b"P1", b"P2", b"P3")
_MOST_OF_A_HEADER = 4096
"""Bytes of a PPM file that Pillow looks at one by one."""
_MOST_RUN_LENGTHS = 10_000_000
"""Pixels, or bytes of the file, that Pillow takes one by one where a BMP is so compressed."""
_BROWSER_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "WEBP", "AVIF")


class ImageError(ValueError):
    """The file cannot be used as an image; the message says what is wrong with it."""


@dataclass(frozen=True)
class StoredImage:
    """An image's values, upright: (H, W) grey, (H, W, 1) or (H, W, 3).

    They are uint8 where they can be shown as they are. opacity: (H, W) in [0, 1] where they
    come with transparency that is not blended yet.
    """

    values: np.ndarray
    opacity: np.ndarray | None = None

    @property
    def is_deep(self) -> bool:
        """Whether its values are not of 8 bits."""
        return bool(self.values.dtype != np.uint8)


@dataclass(frozen=True)
class FileFacts:
    """What an image file is: `size` is (height, width) as it is shown.

    is_shown: whether browsers show it, and as it is meant.
    is_plain: whether every reader shows the same, with nothing to turn, blend or stretch.
    """

    format: str
    size: tuple[int, int]
    bands: int
    bits: int
    is_shown: bool
    is_plain: bool

    def __str__(self) -> str:
        height, width = self.size
        return f"{width} x {height} pixels, {self.bands} bands of {self.bits} bits, {self.format}"


def read_stored(content: bytes, max_pixels: int, bands: Sequence[int] = ()) -> StoredImage:
    """The values in an image file.

    Args:
        content: the file.
        max_pixels: more are refused.
        bands: of pictures with more than three, counted from 1; empty: the first three.

    Raises:
        ImageError: saying what is wrong with the file.
    """
    if not content:
        raise ImageError("the image file is empty (0 bytes); upload it again")
    try:
        stored = _read(content, max_pixels, bands)
    except (tiff.TiffError, jpeg.JpegError, jpeg2000.Jpeg2000Error) as error:
        raise ImageError(str(error)) from None
    except ImageError:
        raise
    except Exception as error:  # on a damaged file decoders raise nearly anything
        raise ImageError(
            f"the image file ({len(content)} bytes) is truncated or corrupt: {error}; "
            "check that it opens in an image viewer and upload it again"
        ) from error
    if stored.values.dtype.kind == "f" and not np.isfinite(stored.values).all():
        raise ImageError(
            "the image holds values that are not finite (NaN or infinity); write a number where "
            "there is none, such as 0"
        )
    return stored


def file_facts(content: bytes, max_pixels: int = MAX_PIXELS) -> FileFacts:
    """What an image file is, from its header alone; `ImageError` if it is none."""
    try:
        if content[:4] in tiff.SIGNATURES:
            header = tiff.read_header(content)
            is_turned = header.orientation in (5, 6, 7, 8)
            size = (header.width, header.height) if is_turned else (header.height, header.width)
            return FileFacts("TIFF", size, header.bands, header.bits, False, False)
        with open_image(content, max_pixels) as image:
            return _facts(content, image)
    except tiff.TiffError as error:
        raise ImageError(str(error)) from None
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"the image file ({len(content)} bytes) is corrupt: {error}") from error


def open_image(
    content: bytes, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> ImageFile.ImageFile:
    """The file as Pillow opens it, its header read and its size checked."""
    if content[:2] in _PLAIN:
        raise ImageError(
            f"the {content[:2].decode()} file holds its values as text, which takes long to read; "
            "save it as PNG, or as binary PPM (P4 to P6)"
        )
    if content[:1] == b"P":
        _check_ppm_header(content)
    tiff.silence_pillow()
    Image.init()
    known = [name for name in formats if name in Image.OPEN]  # AVIF is not in every Pillow
    try:
        image = Image.open(io.BytesIO(content), formats=known)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large (limit {max_pixels} pixels): {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"the file ({len(content)} bytes, begins with {content[:8]!r}) is no image of a known "
            f"format; expected one of {', '.join(known)}"
        ) from error
    _check_size(image.width, image.height, max_pixels)
    return image


def _read(content: bytes, max_pixels: int, bands: Sequence[int]) -> StoredImage:
    if content[:4] in tiff.SIGNATURES:
        return _read_tiff(content, max_pixels, bands)
    return _read_by_pillow(content, max_pixels, bands)


def _read_tiff(content: bytes, max_pixels: int, bands: Sequence[int]) -> StoredImage:
    header = tiff.read_header(content)
    _check_size(header.width, header.height, max_pixels)
    tiff.check_pieces(content, header)
    is_left_to_pillow = header.is_known_to_pillow and not header.is_sparse
    is_banded = header.is_plain and header.dtype is not None
    if is_banded and (not is_left_to_pillow or _is_unusual(header, bands)):
        return _bands_of_tiff(content, header, max_pixels, bands)
    if not is_left_to_pillow or header.is_mistaken_by_pillow:
        raise ImageError(header.refusal)
    if header.is_tiled:  # decoded as a whole, whatever lies outside the image
        _check_size(header.piece[1], header.piece[0], max_pixels)
    _check_decoded(header, header.bands, max_pixels)
    try:
        return _read_by_pillow(content, max_pixels, bands)
    except Exception as error:
        if header.is_foreign or isinstance(error.__cause__, UnidentifiedImageError):
            raise ImageError(header.refusal) from error
        raise


def _read_by_pillow(content: bytes, max_pixels: int, bands: Sequence[int]) -> StoredImage:
    with open_image(content, max_pixels) as image:
        if _png_depth(content) == 16 and image.mode in ("RGB", "RGBA", "LA"):
            return _deep_png(content, image, bands)
        if content.startswith(jpeg.SIGNATURE):
            jpeg.check_scans(content)
        _check_run_lengths(content, image)
        if (maxval := _maxval(image)) is not None:
            return StoredImage(_of_ppm(content, image, maxval))
        picture = _of_jpeg2000(content, image) if image.format == "JPEG2000" else image
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        if picture.mode == "F" or picture.mode.startswith("I"):
            return StoredImage(np.array(upright))
        if bands and picture.mode in ("RGBA", "RGBX"):
            return StoredImage(np.array(upright)[:, :, _chosen(4, bands)])
        return StoredImage(_shown(upright))


def _of_jpeg2000(content: bytes, image: Image.Image) -> Image.Image:
    """The picture whose header is open as `image`."""
    jpeg2000.check_tiles(content)
    num_values = image.width * image.height * len(image.getbands())
    pixels = jpeg2000.decode(content, num_values)
    decoded = Image.frombytes(image.mode, image.size, pixels)
    decoded.palette = image.palette
    return decoded


def _maxval(image: Image.Image) -> int | None:
    """What stands for white in a binary PPM or PGM whose values Pillow would take one by one."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        if codec == "ppm":
            return int(arguments[-1])
    return None


def _of_ppm(content: bytes, image: ImageFile.ImageFile, maxval: int) -> np.ndarray:
    """(H, W) or (H, W, 3): uint8 with 255 as white, of more than 8 bits uint16 with 65535."""
    bands = len(image.getbands())
    if bands not in (1, 3):
        raise ImageError(f"the PPM file has {bands} bands, expected 1 or 3; save it as PNG")
    num_values = image.height * image.width * bands
    dtype, white = (">u2", 65535) if maxval > 255 else (">u1", 255)
    stored = np.frombuffer(content, dtype, num_values, image.tile[0].offset)
    stored = stored.reshape(image.height, image.width, *((bands,) if bands > 1 else ()))
    shades = np.minimum(np.rint(np.arange(white + 1) / maxval * white), white)  # as Pillow has them
    return np.asarray(shades.astype(dtype[1:])[stored])


def _is_unusual(header: tiff.TiffHeader, bands: Sequence[int]) -> bool:
    """Whether Pillow would not show it, or not as it is meant."""
    if header.dtype != np.uint8 or header.is_mistaken_by_pillow:
        return True
    if header.bands == (1 if header.is_grey else 3):
        return False
    if not header.has_alpha or header.bands != (2 if header.is_grey else 4):
        return True
    if header.is_grey:
        return header.is_premultiplied or header.is_white_zero
    return bool(bands) or (header.is_planar and header.is_premultiplied)


def _bands_of_tiff(
    content: bytes, header: tiff.TiffHeader, max_pixels: int, bands: Sequence[int]
) -> StoredImage:
    is_grey = header.bands - header.has_alpha < 3
    chosen = [0] if is_grey else _chosen(header.bands, bands)
    is_shown_through = header.dtype == np.uint8 and header.has_alpha and header.bands in (2, 3, 4)
    is_shown_through &= is_grey or not bands
    if is_shown_through:
        chosen.append(header.bands - 1)
    assert header.dtype is not None
    num_bytes = header.width * header.height * len(chosen) * header.dtype.itemsize
    if num_bytes > MAX_BYTES_PER_PIXEL * max_pixels:
        raise ImageError(
            f"the image has {header.width} x {header.height} pixels in {len(chosen)} bands of "
            f"{header.bits} bits, {num_bytes} bytes; the limit is {MAX_BYTES_PER_PIXEL} times "
            f"{max_pixels}; cut it into tiles"
        )
    _check_decoded(header, len(chosen) if header.is_planar else header.bands, max_pixels)
    values = _upright(tiff.read_bands(content, header, chosen), header.orientation)
    if not is_shown_through:
        return StoredImage(values)
    shown, opacity = np.ascontiguousarray(values[..., :-1]), values[..., -1]
    if not header.is_premultiplied:
        return StoredImage(shown, opacity.astype(np.float32) / 255)
    if not header.is_white_zero:  # where white is zero, what is missing is white already
        shown += np.minimum(255 - shown, 255 - opacity[..., None])
    return StoredImage(shown)


def _chosen(num_bands: int, bands: Sequence[int]) -> list[int]:
    """Which bands are shown, counted from 0."""
    if num_bands <= 3 or not bands:
        return list(range(3))
    if max(bands) > num_bands:
        raise ImageError(f"the image has {num_bands} bands; RALIS_BANDS asks for band {max(bands)}")
    return [band - 1 for band in bands]


def _png_depth(content: bytes) -> int:
    return content[24] if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 25 else 8


def _deep_png(content: bytes, image: Image.Image, bands: Sequence[int]) -> StoredImage:
    """Of more than one band; Pillow would drop the low bytes."""
    image.load()  # what is damaged is refused here: OpenCV fills in
    orientation = int(image.getexif().get(_ORIENTATION, 1))
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ImageError(f"the PNG file of 16 bits and mode {image.mode} cannot be read")
    values = _upright(decoded, orientation)
    has_alpha = values.shape[2] == 4
    values[:, :, :3] = values[:, :, 2::-1]
    if bands and has_alpha:
        return StoredImage(np.ascontiguousarray(values[:, :, _chosen(4, bands)]))
    opacity = values[:, :, 3].astype(np.float32) / 65535 if has_alpha else None
    return StoredImage(np.ascontiguousarray(values[:, :, :3]), opacity)


def _shown(image: Image.Image) -> np.ndarray:
    """8 bits as browsers show them."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array of (H, W, ...) turned as the EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _facts(content: bytes, image: Image.Image) -> FileFacts:
    bits = _png_depth(content)
    if image.mode == "F" or image.mode == "I":
        bits = 32
    elif image.mode.startswith("I;16"):
        bits = 16
    if (maxval := _maxval(image)) is not None:
        bits = 16 if maxval > 255 else 8
    orientation = int(image.getexif().get(_ORIENTATION, 1))
    is_turned = orientation in (5, 6, 7, 8)
    size = (image.width, image.height) if is_turned else (image.height, image.width)
    name = image.format or "unknown"
    is_shown = name in _BROWSER_FORMATS and bits <= 8
    is_plain = (
        is_shown and image.mode == "RGB" and not image.has_transparency_data and orientation == 1
    )
    return FileFacts(name, size, len(image.getbands()), bits, is_shown, is_plain)


def _check_ppm_header(content: bytes) -> None:
    """Of a file that begins with P; what else is wrong with it is said when it is opened."""
    is_long = len(content) > _MOST_OF_A_HEADER and content[1:2] in b"0456fy"
    num_words = 3 if content[:2] == b"P4" else 4
    uncommented = re.sub(rb"#[^\r\n]*[\r\n]?", b"", content[:_MOST_OF_A_HEADER])
    if is_long and not re.match(rb"(\S+\s+){%d}\S+\s" % (num_words - 1), uncommented):
        raise ImageError(
            f"the header of the PPM file does not end within {_MOST_OF_A_HEADER} bytes; leave "
            "comments out, or save it as PNG"
        )


def _check_run_lengths(content: bytes, image: ImageFile.ImageFile) -> None:
    most = max(image.width * image.height, len(content))
    if most > _MOST_RUN_LENGTHS and any(codec == "bmp_rle" for codec, *_ in image.tile):
        raise ImageError(
            f"the BMP file of {image.width} x {image.height} pixels ({len(content)} bytes) is "
            "compressed by run lengths, which takes long to read; save it as PNG"
        )


def _check_decoded(header: tiff.TiffHeader, num_bands: int, max_pixels: int) -> None:
    num_bytes = header.decoded_bytes(num_bands)
    itself = header.width * header.height * num_bands * max(1, header.bits // 8)
    limit = max(_ALWAYS_DECODED, _MAX_TIMES_ITSELF * itself)
    limit = min(limit, _MAX_DECODED_PER_PIXEL * max_pixels)
    if num_bytes > limit:
        height, width = header.piece
        raise ImageError(
            f"the image of {header.width} x {header.height} pixels is stored in pieces of {width} "
            f"x {height} pixels and {num_bands} bands, which are {num_bytes} bytes when decoded, "
            f"at most {limit} are; cut it into tiles, write fewer bands, or pieces that fit the "
            "image"
        )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels (width x height), the limit is "
            f"{max_pixels} pixels; scale it down or cut it into tiles"
        )

"""A TIFF file -> what its header says, and its bands as they are stored.

Pillow shows TIFF files of few kinds: not 16 bits in several bands, nor more than a few bands. Here
each part of such a file becomes, under a new header, a picture of one grey band that Pillow reads.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNKNOWN_TO_PILLOW = b"MM\0+"
"""BigTIFF whose highest bytes come first."""
_HEADER_BYTES = 8
MOST_VALUES_AT_ONCE = 40_000_000
"""Of one strip or tile, in all its bands: it has to be decoded as a whole."""
_VALUES_AT_ONCE = 4_000_000
_LEFT_OUT = (0, 0)
_MOST_ALONE = 10_000
"""Times that a decoder is started for a plane, up to a millisecond each."""
_MOST_PAGES = 10_000
_MOST_IN_A_TAG = 1_000_000
"""Values of a tag that is read here, such as where the pieces lie."""
_SHARED_BYTES = 64_000_000
"""Where pieces that look alike are stored once, so many bytes may be read more than once."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 317, 322, 323, 324, 325
_SUBFILE, _EXTRA, _FORMAT, _ORIENTATION, _FILL_ORDER = 254, 338, 339, 274, 266
_READ = (
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES),
    *(_ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT),
    *(_TILE_OFFSETS, _TILE_BYTES, _SUBFILE, _EXTRA, _FORMAT, _ORIENTATION),
    _FILL_ORDER,
)
_WHOLE_NUMBERS = {1: "byte", 3: "short", 4: "long", 16: "long8"}
_GREY, _RGB = (0, 1), 2
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that work on values, whatever they stand for: none, LZW, deflate, and so on."""
_FAX = (2, 3, 4, 32771)
"""Of what is damaged in these, the decoder writes a line for each row to standard error."""
_FOREIGN = {
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((34676, 34677), "LogLuv, which OpenCV writes of floats if not told otherwise"),
    **{34887: "LERC", 34933: "PNG", 50001: "WebP", **dict.fromkeys((50002, 52546), "JPEG XL")},
}
"""Compressions that few decoders know."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_ALPHA = (_ASSOCIATED, _UNASSOCIATED)
_DTYPES = {
    **{(bits, 1): f"u{bits // 8}" for bits in (8, 16, 32)},
    **{(bits, 2): f"i{bits // 8}" for bits in (8, 16, 32)},
    **{(bits, 3): f"f{bits // 8}" for bits in (16, 32, 64)},
}


class TiffError(ValueError):
    """The file is of a kind that is not read; the message says which, and what to do."""


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF file says of itself.

    bands: how many there are. dtype: of their values, None where it is of another kind.
    is_plain: whether they are grey values or colours (or unknown bands) stored without loss.
    has_alpha: whether the last band is said to be transparency.
    """

    width: int
    height: int
    bands: int
    bits: int
    dtype: np.dtype | None
    is_plain: bool
    has_alpha: bool
    orientation: int
    tags: Any
    order: Literal["<", ">"]
    is_known_to_pillow: bool = True

    @property
    def is_tiled(self) -> bool:
        """Whether it is stored in tiles, not in strips."""
        return _TILE_WIDTH in self.tags

    @property
    def piece(self) -> tuple[int, int]:
        """(height, width) of a tile or strip."""
        if self.is_tiled:
            return int(self.tags[_TILE_HEIGHT]), int(self.tags[_TILE_WIDTH])
        rows = int(self.tags.get(_ROWS_PER_STRIP, self.height))
        return min(rows, self.height), self.width

    @property
    def is_planar(self) -> bool:
        """Whether each band is stored in pieces of its own."""
        return self._has_planes and self.bands > 1

    @property
    def is_mistaken_by_pillow(self) -> bool:
        """Whether Pillow shows its planes as something else, such as black for white."""
        is_raw = int(self.tags.get(_COMPRESSION, 1)) == 1
        is_mistaken_alone = is_raw and (self.bits < 8 or self.is_white_zero)
        return self._has_planes and (self.bands == 2 or (self.bands == 1 and is_mistaken_alone))

    @property
    def is_grey(self) -> bool:
        """Whether the first band is grey, whatever the others are; colours otherwise."""
        return int(self.tags.get(_PHOTOMETRIC, 1)) in _GREY

    @property
    def is_white_zero(self) -> bool:
        """Whether what is stored counts from white down to black."""
        return int(self.tags.get(_PHOTOMETRIC, 1)) == 0

    @property
    def is_premultiplied(self) -> bool:
        """Whether transparency is multiplied into the colours."""
        return self.has_alpha and _all(self.tags, _EXTRA, ())[-1] == _ASSOCIATED

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Where each strip or tile begins, and its length; `_LEFT_OUT` of one that is not there."""
        offsets = _all(self.tags, _TILE_OFFSETS if self.is_tiled else _STRIP_OFFSETS, ())
        lengths = _all(self.tags, _TILE_BYTES if self.is_tiled else _STRIP_BYTES, ())
        return list(zip(offsets, lengths, strict=False))

    @property
    def is_foreign(self) -> bool:
        """Whether it is compressed in a way that Pillow may not know."""
        return int(self.tags.get(_COMPRESSION, 1)) in _FOREIGN

    @property
    def refusal(self) -> str:
        """What is said of a file whose form is not read."""
        compression = int(self.tags.get(_COMPRESSION, 1))
        name = _FOREIGN.get(compression)
        how = f", compressed as {name or compression}" if name or compression != 1 else ""
        return (
            f"the TIFF file has {self.bands} bands of {self.bits} bits{how}, in a form that is not "
            "read; expected whole numbers of 8, 16 or 32 bits or floats, grey or colours, without "
            "compression or with LZW or deflate: write it so"
        )

    @property
    def _has_planes(self) -> bool:
        return int(self.tags.get(_PLANAR, 1)) == 2

    def decoded_bytes(self, num_bands: int) -> int:
        """What pieces with so many bands come to when decoded, beyond the picture's edge too."""
        height, width = (max(1, side) for side in self.piece)
        num_pieces = -(-self.height // height) * -(-self.width // width)
        return num_pieces * height * width * num_bands * max(1, self.bits // 8)

    @property
    def is_compressed(self) -> bool:
        """Whether values may stand as differences."""
        return int(self.tags.get(_COMPRESSION, 1)) not in (1, 32773)

    @property
    def is_sparse(self) -> bool:
        """Whether pieces were left out."""
        return _LEFT_OUT in self.pieces


def silence_pillow() -> None:
    """From now on Pillow does not warn of what is odd in a file: that may be each of its tags."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # catch_warnings is not for threads


def read_header(content: bytes) -> TiffHeader:
    """The header of a file that begins with one of `SIGNATURES`.

    Raises:
        TiffError: if it has several pages (smaller copies and masks of one are none), or is
            compressed in a way that is not read.
        Exception: of any kind, if it is damaged.
    """
    pages = [page for page in _pages(content) if page.has_size]
    if not pages:
        raise ValueError("its directory is missing, as where the end of a TIFF file is lost")
    shown = [page for page in pages if not page.subfile & 0b101] or pages
    if len(shown) > 1:
        raise TiffError(
            f"the TIFF file has {len(shown)} pages, expected one; write each page (slice, channel "
            "or time) to a file of its own"
        )
    tags = _tags(content, shown[0])
    compression = int(tags.get(_COMPRESSION, 1))
    if compression in _FAX:
        raise TiffError(
            f"the TIFF file is compressed as a fax ({compression}), which is not read; write it "
            "with LZW or deflate"
        )
    bits = _all(tags, _BITS, (1,))
    formats = _all(tags, _FORMAT, (1,))
    order: Literal["<", ">"] = ">" if content[:2] == b"MM" else "<"
    name = _DTYPES.get((bits[0], formats[0])) if len({*bits}) == len({*formats}) == 1 else None
    photometric = int(tags.get(_PHOTOMETRIC, 1))
    is_plain = photometric in (*_GREY, _RGB) and compression in _LOSSLESS
    bands = int(tags.get(_SAMPLES, 1))
    extra = _all(tags, _EXTRA, ())
    return TiffHeader(
        width=int(tags[_WIDTH]),
        height=int(tags[_HEIGHT]),
        bands=bands,
        bits=int(bits[0]),
        dtype=None if name is None else np.dtype(name),
        is_plain=is_plain,
        has_alpha=bool(extra) and extra[-1] in _ALPHA,
        orientation=int(tags.get(_ORIENTATION, 1)),
        tags=tags,
        order=order,
        is_known_to_pillow=content[:4] != _UNKNOWN_TO_PILLOW,
    )


def check_pieces(content: bytes, header: TiffHeader) -> None:
    """Return if the pieces lie apart in the file, but for a few that may share their place.

    Raises:
        TiffError: if they do not: reading them would take any time, however small the file is.
            Or if one lies where the file's own beginning is.
    """
    lengths = [length for _, length in header.pieces]
    if any(start < _HEADER_BYTES and length for start, length in header.pieces):
        raise TiffError("a piece of the TIFF file lies within its header; write the file again")
    if sum(min(int(length), len(content)) for length in lengths) > len(content) + _SHARED_BYTES:
        raise TiffError(
            f"the {len(lengths)} pieces of the TIFF file overlap; write each to a place of its own"
        )


def read_bands(content: bytes, header: TiffHeader, chosen: Sequence[int]) -> np.ndarray:
    """(H, W, len(chosen)) of `header.dtype`: those bands, counted from 0, as they are stored.

    Raises:
        TiffError: if the file is stored in a way that is not read here.
        Exception: of any kind, if it is damaged.
    """
    if header.dtype is None or not header.is_plain:
        raise TiffError(header.refusal)
    result = np.empty((header.height, header.width, len(chosen)), header.dtype)
    for place, band in enumerate(chosen) if header.is_planar else [(0, 0)]:
        for rows, cols, values in _parts(content, header, band if header.is_planar else None):
            if header.is_planar:
                result[rows, cols, place] = values[..., 0]
            else:
                result[rows, cols] = values[..., list(chosen)]
    if header.is_white_zero and header.dtype.kind == "u":
        opacity = header.bands - 1 if header.has_alpha else None
        shades = [place for place, band in enumerate(chosen) if band != opacity]
        result[..., shades] = np.iinfo(header.dtype).max - result[..., shades]
    return result


@dataclass(frozen=True, eq=False)
class _Page:
    """A page's directory as it lies in the file at `place`; what its tags hold is not read."""

    place: int
    entries: np.ndarray

    @property
    def has_size(self) -> bool:
        return bool(np.isin((_WIDTH, _HEIGHT), self.entries["tag"]).all())

    @property
    def subfile(self) -> int:
        """Bit 0: a smaller copy of another page. Bit 2: a mask of one."""
        for entry in self.entries[self.entries["tag"] == _SUBFILE][:1]:
            name = _WHOLE_NUMBERS.get(int(entry["type"]), "long")
            return int(entry[name if name in self.entries.dtype.fields else "long"])
        return 0


def _pages(content: bytes) -> Iterator[_Page]:
    """Each page; all of them together are walked in no more steps than the file has bytes."""
    order: Literal["big", "little"] = "big" if content[:2] == b"MM" else "little"
    is_big = content[2] == 43 or content[3] == 43
    entry = _entry(">" if order == "big" else "<", is_big)
    count_bytes, link_bytes, place_at = (8, 8, 8) if is_big else (2, 4, 4)

    def number(at: int, num_bytes: int) -> int:
        return int.from_bytes(content[at : at + num_bytes], order)

    seen: set[int] = set()
    walked, place = 0, number(place_at, link_bytes)
    while 0 < place < len(content) and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        start = place + count_bytes
        there = max(0, len(content) - start) // entry.itemsize
        count = min(number(place, count_bytes), there)
        walked += count * entry.itemsize
        if walked > len(content):
            raise ValueError("its directories overlap")
        yield _Page(place, np.frombuffer(content, entry, count, start if count else 0))
        place = number(start + count * entry.itemsize, link_bytes)


def _entry(order: Literal["<", ">"], is_big: bool) -> np.dtype:
    """An entry of a directory; where its value is a single whole number it stands in it."""
    count_bytes = 8 if is_big else 4
    at = 4 + count_bytes
    fields = {"tag": ("u2", 0), "type": ("u2", 2), "count": (f"u{count_bytes}", 4)}
    fields |= {"byte": ("u1", at), "short": ("u2", at), "long": ("u4", at)}
    fields |= {"long8": ("u8", at)} if is_big else {}
    return np.dtype(
        {
            "names": [*fields],
            "formats": [order + kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": at + count_bytes,
        }
    )


def _tags(content: bytes, page: _Page) -> Any:
    """What a page's tags hold, as Pillow reads them."""
    is_read = np.isin(page.entries["tag"], _READ)
    if (page.entries["count"][is_read] > _MOST_IN_A_TAG).any():
        raise TiffError(
            f"a tag of the TIFF file has more than {_MOST_IN_A_TAG} values; write larger strips or "
            "tiles"
        )
    is_unknown = content[:4] == _UNKNOWN_TO_PILLOW
    beginning = b"MM\0*" + bytes(4) if is_unknown else content[: 16 if 43 in content[2:4] else 8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(beginning)
    tags._bigtiff = 43 in content[2:4]  # Pillow looks in the place of the other byte order alone
    file = io.BytesIO(content)
    file.seek(page.place)
    silence_pillow()
    tags.load(file)
    return tags


def _all(tags: Any, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, tuple) else (value,)


def _parts(
    content: bytes, header: TiffHeader, band: int | None
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Rows, columns and (h, w, bands) values of each piece; of one band alone, or of all."""
    height, width = header.piece
    bands = 1 if band is not None else header.bands
    if not 0 < width * height * bands <= MOST_VALUES_AT_ONCE:
        raise TiffError(
            f"a piece of the TIFF file has {width} x {height} pixels in {bands} bands, at most "
            f"{MOST_VALUES_AT_ONCE} values are decoded at once; write it in strips or tiles"
        )
    across, down = -(-header.width // width), -(-header.height // height)
    first = 0 if band is None else band * across * down
    places = header.pieces[first : first + across * down]
    if len(places) < across * down:
        raise TiffError(f"the TIFF file names {len(places)} of its {across * down} pieces")
    together = 1 if header.is_tiled else max(1, _VALUES_AT_ONCE // (width * height * bands))
    runs = _runs(places, together)
    num_alone = sum(places[start] != _LEFT_OUT for start, _ in runs)
    if num_alone > _MOST_ALONE:
        raise TiffError(
            f"the TIFF file is cut into {across * down} pieces, {num_alone} of which lie alone and "
            f"at most {_MOST_ALONE} may; write it in larger strips or tiles"
        )
    for start, end in runs:
        row, col = divmod(start, across)
        num_rows = min(height * (end - start), header.height - row * height)
        size = (height if header.is_tiled else num_rows, width, bands)
        values = _piece(content, header, places[start:end], size)
        top, left = row * height, col * width
        right = min(header.width, left + width)
        yield slice(top, top + num_rows), slice(left, right), values[:num_rows, : right - left]


def _runs(places: Sequence[tuple[int, int]], together: int) -> list[tuple[int, int]]:
    """Start and end of what is decoded at once: so many pieces, all of them there or none."""
    ends = [
        at
        for at in range(1, len(places))
        if (places[at] == _LEFT_OUT) != (places[at - 1] == _LEFT_OUT)
    ]
    borders = [0, *ends, len(places)]
    return [
        (start, min(start + together, after))
        for before, after in pairwise(borders)
        for start in range(before, after, together)
    ]


def _piece(
    content: bytes,
    header: TiffHeader,
    places: Sequence[tuple[int, int]],
    size: tuple[int, int, int],
) -> np.ndarray:
    """Values of `size` (h, w, bands): strips, of one height but for the last, or one tile.

    They are decoded as the bytes that they are: a grey picture that is wider by as much.
    """
    assert header.dtype is not None
    if places[0] == _LEFT_OUT:  # left out by who wrote it, as GDAL does where there is nothing
        return np.zeros(size, header.dtype)
    pieces = [content[start : start + length] for start, length in places]
    starts = np.cumsum([0, *map(len, pieces[:-1])]).tolist()  # Pillow adds where they begin
    num_bytes = size[1] * size[2] * header.dtype.itemsize
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    directory[_WIDTH], directory[_HEIGHT] = num_bytes, size[0]
    directory[_BITS], directory[_SAMPLES], directory[_PHOTOMETRIC] = 8, 1, 1
    for tag in (_COMPRESSION, _FILL_ORDER):
        directory[tag] = int(header.tags.get(tag, 1))
    directory[_ROWS_PER_STRIP] = header.piece[0] if len(pieces) > 1 else size[0]
    directory[_STRIP_OFFSETS], directory[_STRIP_BYTES] = tuple(starts), tuple(map(len, pieces))
    directory.tagtype[_STRIP_OFFSETS] = directory.tagtype[_STRIP_BYTES] = TiffTags.LONG
    file = io.BytesIO()
    directory.save(file)
    file.write(b"".join(pieces))
    file.seek(0)
    with Image.open(file, formats=["TIFF"]) as image:
        rows = np.asarray(image)
    predictor = int(header.tags.get(_PREDICTOR, 1)) if header.is_compressed else 1
    if predictor == 3:
        return _undone_3(rows, header.dtype, size)
    whole = np.dtype(f"u{header.dtype.itemsize}")  # floats' bits are differences of whole numbers
    stored = rows.view(whole.newbyteorder(header.order)).reshape(size)
    values: np.ndarray = stored.astype(whole, copy=False)
    if predictor == 2:
        values = np.cumsum(values, axis=1, dtype=whole)
    return values.view(header.dtype)


def _undone_3(rows: np.ndarray, dtype: np.dtype, size: tuple[int, int, int]) -> np.ndarray:
    """Floats whose bytes stand apart, the highest of all values first, each as a difference."""
    height, width, bands = size
    parts = np.cumsum(rows.reshape(height, -1, bands), axis=1, dtype=np.uint8)
    planes = parts.reshape(height, dtype.itemsize, width * bands)
    highest_first = np.ascontiguousarray(np.moveaxis(planes, 1, 2))
    values = highest_first.view(dtype.newbyteorder(">")).reshape(size)
    return values.astype(dtype, copy=False)

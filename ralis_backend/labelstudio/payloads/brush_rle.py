"""Label Studio's brush format: one channel of 8-bit alpha <-> a run-length coded bit stream.

A stream is 32 bits count (height * width * 4, as the picture is RGBA), 5 bits word size - 1, four
times 4 bits of size classes - 1, then records: 1 bit run or literal, 2 bits size class, length - 1
in so many bits, then the run's one value or the literal's values. The mask is the fourth channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHANNELS = 4
BYTES_PER_PIXEL = 26
"""No stream is longer: a record for each value, of the longest length and word, takes so many."""
PART_BYTES = 2**18
"""So much of a stream is unpacked at once; unpacked, it takes a hundred times the memory."""
_LONGEST_LITERAL_BYTES = 2**16 * 4 + 8
HEADER_BITS = 32 + 5 + 4 * 4
WORD_SIZE = 8
LENGTH_BITS = np.array([3, 4, 8, 16])
"""The size classes that Label Studio writes: a run's length - 1 takes so many bits."""

Alpha = npt.NDArray[np.uint8]
_Integers = npt.NDArray[np.int64]


class RleError(ValueError):
    """A brush mask is not a stream that Label Studio could have written."""


def encode(alpha: Alpha) -> list[int]:
    """The mask as Label Studio's list of bytes, the same as its converter's `mask2rle`.

    Args:
        alpha: (H, W) uint8, 255 where painted, 0 elsewhere; values between are kept.

    Raises:
        ValueError: if it is no such array, or too large for the stream's 32 bits of count.
    """
    if alpha.ndim != 2 or alpha.dtype != np.uint8 or not 0 < alpha.size < 2**32 // CHANNELS:
        raise ValueError(
            f"alpha has shape {alpha.shape} and type {alpha.dtype}, expected (H, W) uint8 with at "
            "least one and less than 2^30 pixels"
        )
    flat = alpha.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    values = flat[ends - 1].astype(np.int64)
    lengths = np.diff(ends, prepend=0) * CHANNELS

    # By the whole run's length: what is left of a long one is written at full width too.
    size_class = np.searchsorted([2**3, 2**4, 2**8], lengths)
    lengths, parts = _split(lengths)
    size_class, values = np.repeat(size_class, parts), np.repeat(values, parts)
    length_bits = LENGTH_BITS[size_class]
    records = (((0b100 | size_class) << length_bits | (lengths - 1)) << WORD_SIZE) | values
    return _pack(flat.size * CHANNELS, records, 3 + length_bits + WORD_SIZE)


def _split(lengths: _Integers) -> tuple[_Integers, _Integers]:
    """Runs longer than a record can say cut into full ones and the rest; each run's parts."""
    longest = 2 ** int(LENGTH_BITS[-1])
    parts = -(-lengths // longest)
    split = np.full(int(parts.sum()), longest, np.int64)
    split[np.cumsum(parts) - 1] = lengths - (parts - 1) * longest
    return split, parts


def _pack(count: int, records: _Integers, widths: _Integers) -> list[int]:
    header = count << 21 | (WORD_SIZE - 1) << 16
    for position, bits in enumerate(LENGTH_BITS.tolist()):
        header |= (bits - 1) << (12 - 4 * position)
    # Two numbers of the header's bits, so that each fits a window of five bytes.
    records = np.concatenate([[header >> 27, header & (2**27 - 1)], records])
    widths = np.concatenate([[HEADER_BITS - 27, 27], widths])

    ends = np.cumsum(widths)
    starts = ends - widths
    first_bytes = starts >> 3
    windows = records << (40 - widths - (starts & 7))
    # Records share bytes but no bits, so adding them up puts them together. Label Studio's
    # converter always appends 1 to 8 zero bits, a whole byte where none was needed.
    packed = np.zeros(int(ends[-1]) // 8 + 1 + 5, np.int64)
    for position in range(5):
        byte = windows >> (32 - 8 * position) & 0xFF
        packed += np.bincount(first_bytes + position, byte, packed.size).astype(np.int64)
    content: list[int] = packed[:-5].tolist()
    return content


def decode(rle: Sequence[int] | bytes, height: int, width: int) -> Alpha:
    """The alpha channel of a brush mask, (height, width) uint8; anti-aliased edges are kept.

    Takes any word size and size classes. The stream's own count, and its length, are compared
    with the expected size before anything of that size is allocated. Besides the mask it takes
    some tens of megabytes, whatever the stream says.

    Raises:
        RleError: if the stream is empty, cut off, of another size, or no list of bytes.
        ValueError: if height or width is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a mask of {height} x {width} pixels, expected at least 1 x 1")
    content = _content(rle, height * width)
    count = int.from_bytes(content[:4])
    if count != height * width * CHANNELS:
        raise RleError(
            f"brush RLE is of {count} values, expected {height * width * CHANNELS} "
            f"({height} x {width} pixels of {CHANNELS} channels); the mask belongs to another image"
        )
    parameters = int.from_bytes(content[4:7]) >> 3
    word_size = (parameters >> 16) + 1
    length_bits = [(parameters >> shift & 0xF) + 1 for shift in (12, 8, 4, 0)]
    num_records = (len(content) * 8 - HEADER_BITS) // (3 + min(length_bits) + word_size)
    if num_records << max(length_bits) < count:
        raise RleError(
            f"brush RLE is cut off: {len(content)} bytes cannot hold {count} values; paint the "
            "mask again or delete it"
        )
    flat = np.empty(height * width, np.uint8)
    position, end = HEADER_BITS, 0
    while end < count:
        first = position >> 3
        windows = _windows(content[first : first + PART_BYTES + _LONGEST_LITERAL_BYTES])
        part = _records(windows, position - first * 8, end, count, word_size, length_bits)
        position = first * 8 + part.next_position
        if position > len(content) * 8:
            raise RleError(
                f"brush RLE is cut off: it ends after {min(part.end, count)} of {count} values; "
                "paint the mask again or delete it"
            )
        flat[end // CHANNELS : min(part.end, count) // CHANNELS] = _alpha(
            part, windows, end, count, word_size
        )
        end = part.end
    return flat.reshape(height, width)


@dataclass(frozen=True)
class _Part:
    """The records whose heads lie in one part of a stream.

    ends: each record's end in values, from the stream's beginning.
    positions: the bit of the part that its first value starts at.
    literals: the places of those that are literals, not runs.
    next_position: the bit of the part where the next record begins.
    """

    ends: list[int]
    positions: list[int]
    literals: list[int]
    next_position: int

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else 0


def _alpha(part: _Part, windows: _Integers, begin: int, count: int, word_size: int) -> Alpha:
    """The pixels whose alpha is written by the records of a part; `begin` is their first value."""
    ends, positions = np.array(part.ends), np.array(part.positions)
    literal = np.zeros(len(ends), bool)
    literal[part.literals] = True
    if part.end > count and literal[-1]:
        raise RleError(f"brush RLE has more values than the {count} it announces")
    ends[-1] = min(part.end, count)  # a run may say more than there is room for
    stops = ends // CHANNELS  # pixels whose alpha has been written when the record ends
    starts = np.concatenate([[begin // CHANNELS], stops[:-1]])
    alpha = np.repeat(_words(windows, positions, word_size), stops - starts)
    if literal.any():
        pixels, at = _literal_alpha(ends, positions, literal, word_size, begin)
        alpha[pixels - begin // CHANNELS] = _words(windows, at, word_size)
    return alpha


def _content(rle: Sequence[int] | bytes, num_pixels: int) -> bytes:
    if not isinstance(rle, (list, tuple, bytes)):
        raise RleError(f"brush RLE is a {type(rle).__name__}, expected a list of bytes")
    longest = HEADER_BITS + BYTES_PER_PIXEL * num_pixels
    if len(rle) > longest:
        raise RleError(
            f"brush RLE has {len(rle)} bytes, expected {longest} at most for {num_pixels} pixels"
        )
    try:
        content = bytes(rle)
    except (TypeError, ValueError) as error:
        raise RleError(f"brush RLE holds something else than numbers 0 to 255: {error}") from None
    if len(content) * 8 < HEADER_BITS:
        raise RleError(
            f"brush RLE has {len(content)} bytes, expected at least {HEADER_BITS // 8 + 1}; "
            "paint the mask again or delete it"
        )
    return content


def _windows(content: bytes) -> _Integers:
    """The five bytes from each byte on, as one number: any field of up to 33 bits is inside."""
    padded = np.frombuffer(content + bytes(5), np.uint8).astype(np.int64)
    size = len(content)
    windows = padded[:size].copy()
    for position in range(1, 5):
        windows <<= 8
        windows |= padded[position : position + size]
    return windows


def _records(
    windows: _Integers,
    position: int,
    end: int,
    count: int,
    word_size: int,
    length_bits: list[int],
) -> _Part:
    """The records whose heads lie in a part's first `PART_BYTES`, from bit `position` on.

    The only step that cannot be done for all records at once: where one begins depends on the one
    before. It touches the records' heads alone, through a view whose items are plain integers.
    A `next_position` beyond the part's end says that the stream is cut off.
    """
    view = memoryview(windows)  # type: ignore[arg-type]
    shifts = [37 - bits for bits in length_bits] * 2
    masks = [(1 << bits) - 1 for bits in length_bits] * 2
    heads = [3 + bits for bits in length_bits] * 2
    ends: list[int] = []
    positions: list[int] = []
    literals: list[int] = []
    try:
        while end < count and position < PART_BYTES * 8:
            window = view[position >> 3] << (position & 7)
            kind = window >> 37 & 7  # 1 bit run or literal, 2 bits size class
            length = (window >> shifts[kind] & masks[kind]) + 1
            position += heads[kind]
            positions.append(position)
            end += length
            if kind & 4:
                position += word_size
            else:
                literals.append(len(ends))
                position += length * word_size
            ends.append(end)
    except IndexError:
        position = len(view) * 8 + 1
    return _Part(ends, positions, literals, position)


def _literal_alpha(
    ends: _Integers,
    positions: _Integers,
    literal: npt.NDArray[np.bool_],
    word_size: int,
    begin: int,
) -> tuple[_Integers, _Integers]:
    """The pixels whose alpha stands in a literal, and the bits where their values start."""
    begins = np.concatenate([[begin], ends[:-1]])[literal]
    first = begins // CHANNELS
    num_pixels = ends[literal] // CHANNELS - first
    offsets = first * CHANNELS + CHANNELS - 1 - begins  # of the first alpha inside its literal
    within = np.arange(num_pixels.sum()) - np.repeat(np.cumsum(num_pixels) - num_pixels, num_pixels)
    at = np.repeat(positions[literal] + offsets * word_size, num_pixels)
    return np.repeat(first, num_pixels) + within, at + within * (CHANNELS * word_size)


def _words(windows: _Integers, positions: _Integers, word_size: int) -> Alpha:
    """The values that start at the given bits."""
    shifts = 40 - word_size - (positions & 7)
    words: _Integers = windows[positions >> 3] >> shifts & ((1 << word_size) - 1)
    if word_size > 8 and words.size and words.max() > 255:
        raise RleError(f"brush RLE holds the value {words.max()}, expected 0 to 255")
    return words.astype(np.uint8)

"""TIFF files that Pillow does not write: several deep bands, planes, tiles, byte orders."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def write_tiff(
    values: np.ndarray,
    *,
    planar: bool = False,
    compression: int = 1,
    predictor: int = 1,
    extra: tuple[int, ...] = (),
    tile: int | None = None,
    order: str = "<",
    orientation: int = 1,
    rows: int = 5,
    big: bool = False,
    left_out: tuple[int, ...] = (),
    more: dict[int, list[int]] | None = None,
) -> bytes:
    """(H, W, bands) as a TIFF file of one page, or as BigTIFF, without the pieces of `left_out`."""
    height, width, bands = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored[..., band : band + 1] for band in range(bands)] if planar else [stored]
    chunks = [
        _chunk(part, compression, predictor) for plane in planes for part in _cut(plane, tile, rows)
    ]
    chunks = [b"" if at in left_out else chunk for at, chunk in enumerate(chunks)]
    starts = np.cumsum([16 if big else 8, *map(len, chunks)]).tolist()
    lengths = [len(chunk) for chunk in chunks]
    body = b"".join(chunks) + b"\0" * (starts[-1] % 2)
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    places = (324, 325) if tile else (273, 279)
    tags = {
        **{256: [width], 257: [height], 258: [8 * values.dtype.itemsize] * bands},
        **{259: [compression], 262: [2 if bands >= 3 else 1], 274: [orientation], 277: [bands]},
        **{284: [2 if planar else 1], 317: [predictor], 339: [kind] * bands},
        **({338: list(extra)} if extra else {}),
        **({322: [tile], 323: [tile]} if tile else {278: [rows]}),
        **{
            places[0]: [0 if at in left_out else it for at, it in enumerate(starts[:-1])],
            places[1]: lengths,
        },
        **(more or {}),
    }
    at = (16 if big else 8) + len(body)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return mark + head + body + _directory(tags, at, order, big)


def _cut(plane, tile, rows):
    height, width = plane.shape[:2]
    if tile is None:
        return [plane[start : start + rows] for start in range(0, height, rows)]
    whole = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        whole[row : row + tile, col : col + tile]
        for row in range(0, height, tile)
        for col in range(0, width, tile)
    ]


def _chunk(part, compression, predictor):
    if predictor == 2:
        native = part.astype(part.dtype.newbyteorder("="))
        native[:, 1:] -= native[:, :-1].copy()
        part = native.astype(part.dtype)
    return zlib.compress(part.tobytes()) if compression == 8 else part.tobytes()


def _directory(tags, at, order, big):
    """Each tag's values as LONG, or as LONG8."""
    count, kind, type_ = ("Q", "Q", 16) if big else ("H", "I", 4)
    entries, beyond = b"", b""
    size = struct.calcsize(f"={kind}")
    start = at + struct.calcsize(f"={count}") + (4 + 2 * size) * len(tags) + size
    for tag in sorted(tags):
        packed = struct.pack(f"{order}{len(tags[tag])}{kind}", *tags[tag])
        entries += struct.pack(f"{order}HH{kind}", tag, type_, len(tags[tag]))
        if len(packed) == size:
            entries += packed
        else:
            entries += struct.pack(order + kind, start + len(beyond))
            beyond += packed
    return struct.pack(order + count, len(tags)) + entries + bytes(size) + beyond

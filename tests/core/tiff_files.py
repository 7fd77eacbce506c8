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
) -> bytes:
    """(H, W, bands) as a TIFF file of one page."""
    height, width, bands = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored[..., band : band + 1] for band in range(bands)] if planar else [stored]
    chunks = [
        _chunk(part, compression, predictor) for plane in planes for part in _cut(plane, tile, rows)
    ]
    starts = np.cumsum([8, *map(len, chunks)]).tolist()
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
        **{places[0]: starts[:-1], places[1]: lengths},
    }
    at = 8 + len(body)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + body + _directory(tags, at, order)


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


def _directory(tags, at, order):
    entries, beyond = b"", b""
    start = at + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        packed = struct.pack(f"{order}{len(tags[tag])}I", *tags[tag])
        entries += struct.pack(order + "HHI", tag, 4, len(tags[tag]))
        if len(packed) == 4:
            entries += packed
        else:
            entries += struct.pack(order + "I", start + len(beyond))
            beyond += packed
    return struct.pack(order + "H", len(tags)) + entries + bytes(4) + beyond

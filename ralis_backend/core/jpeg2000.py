"""A JPEG 2000 file -> into how many tiles its picture is cut; nothing is decoded.

The decoder makes room for all tiles and their components before it reads the first one.
"""

from __future__ import annotations

import re
import struct

MAX_PARTS = 40_000
"""Tiles times components: 10,000 tiles in four bands."""

_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})(.{2})", re.DOTALL)
"""A codestream's first two markers; the size of the picture and its tiles, the components."""


class Jpeg2000Error(ValueError):
    """The file asks for memory out of proportion; the message says for what."""


def check_tiles(content: bytes) -> None:
    """Return if no codestream of the file has more tiles than it needs.

    Raises:
        Jpeg2000Error: if one has.
    """
    for found in _SIZE.finditer(content):
        width, height, _, _, tile_width, tile_height, left, top = struct.unpack(">8I", found[1])
        components = int.from_bytes(found[2], "big")
        if not tile_width or not tile_height:
            continue
        across = -(-(width - left) // tile_width)
        down = -(-(height - top) // tile_height)
        if across * down * components > MAX_PARTS:
            raise Jpeg2000Error(
                f"the JPEG 2000 file is cut into {across * down} tiles of {tile_width} x "
                f"{tile_height} pixels in {components} bands, at most {MAX_PARTS // components} "
                "are read; save it with larger tiles"
            )

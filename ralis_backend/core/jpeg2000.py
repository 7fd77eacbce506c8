"""A JPEG 2000 file -> into how many tiles its picture is cut; nothing is decoded.

The decoder makes room for all tiles and their components before it reads the first one.
"""

from __future__ import annotations

import re
import struct

MAX_PARTS = 40_000
"""Tiles times components: 10,000 tiles in four bands."""

_SIZE = re.compile(rb"\xff\x51(?=(.{2}).{2}(.{32})(.{2}))", re.DOTALL)
"""A codestream's SIZ: its length, the size of the picture and its tiles, the components.

Decoders skip markers that they do not know before it: it may stand anywhere.
"""


class Jpeg2000Error(ValueError):
    """The file asks for memory out of proportion; the message says for what."""


def check_tiles(content: bytes) -> None:
    """Return if no codestream of the file has more tiles than it needs.

    Raises:
        Jpeg2000Error: if one has.
    """
    for found in _SIZE.finditer(content):
        components = int.from_bytes(found[3], "big")
        if int.from_bytes(found[1], "big") != 38 + 3 * components:
            continue  # those two bytes by chance
        width, height, _, _, tile_width, tile_height, left, top = struct.unpack(">8I", found[2])
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

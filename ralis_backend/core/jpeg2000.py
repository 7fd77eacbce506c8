"""A JPEG 2000 file -> its pixels, decoded by a process of its own with bounds.

What a decoder needs cannot be told from a header. It makes room for all tiles and their components
before it reads the first one: those are counted. But precincts and code-blocks, of which there may
be one for every few pixels, are set anew for each tile, and gone through again in each layer.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

MAX_PARTS = 40_000
"""Tiles times components: 10,000 tiles in four bands."""

_SIZE = re.compile(rb"\xff\x51(?=(.{2}).{2}(.{32})(.{2}))", re.DOTALL)
"""A codestream's SIZ: its length, the size of the picture and its tiles, the components.

Decoders skip markers that they do not know before it: it may stand anywhere.
"""

_PROGRAM = Path(__file__).with_name("jpeg2000_process.py")
_MEMORY, _MEMORY_PER_VALUE = 512_000_000, 12
"""Bytes: of the interpreter, and of what is decoded, where usual files take 8."""
_CPU_S, _CPU_S_PER_VALUE, _CPU_S_PER_BYTE = 10, 0.4e-6, 2e-6
"""About six times what usual files take on a slow core."""
_WAIT_S = 60
"""Beside three times the CPU time, where other processes have the cores."""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Jpeg2000Error(ValueError):
    """The file is damaged, or asks for more than is given to it; the message says of what."""


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


def decode(content: bytes, num_values: int) -> bytes:
    """The pixels of a file, as Pillow's `tobytes` gives them.

    On macOS, which does not bound a process's memory, time is the only bound.

    Args:
        content: the file.
        num_values: its pixels times its bands.

    Raises:
        Jpeg2000Error: if it cannot be decoded, or not with the memory and time of its size.
    """
    memory = _MEMORY + _MEMORY_PER_VALUE * num_values + 2 * len(content)
    cpu_s = int(_CPU_S + _CPU_S_PER_VALUE * num_values + _CPU_S_PER_BYTE * len(content))
    takes_long = Jpeg2000Error(
        f"the JPEG 2000 file takes more than {cpu_s} s to decode, several times what its size "
        "needs; convert it to PNG or TIFF"
    )
    with _start(memory, cpu_s) as process:
        try:
            pixels, said = process.communicate(content, timeout=_WAIT_S + 3 * cpu_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise takes_long from None
        except BaseException:
            process.kill()
            raise
    if process.returncode == -signal.SIGXCPU:
        raise takes_long
    if process.returncode != 0:
        reason = said.decode(errors="replace").strip().splitlines()[-1:]
        raise Jpeg2000Error(
            f"the JPEG 2000 file ({len(content)} bytes) is truncated or corrupt, or needs more "
            f"than {memory // 1_000_000} MB to decode ({''.join(reason) or process.returncode}); "
            "check that it opens in an image viewer, and convert it to PNG or TIFF"
        )
    return pixels


def _start(memory: int, cpu_s: int) -> subprocess.Popen[bytes]:
    """Signals that stop all processes do not reach this one: its end would be the file's fault."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), str(memory), str(cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise Jpeg2000Error(
            f"the JPEG 2000 file is not decoded: no process can be started for it ({error})"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""A JPEG 2000 file on standard input -> its pixels on standard output, within bounds.

A program, started by `core/jpeg2000`; it imports Pillow alone. Arguments: bytes of memory, seconds
of CPU time.
"""

from __future__ import annotations

import io
import resource
import sys
from contextlib import suppress

from PIL import Image, Jpeg2KImagePlugin


def main(memory: int, cpu_s: int) -> int:
    """The exit status; where it is not 0, the last line on standard error says why."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, cpu_s)
    content = sys.stdin.buffer.read()
    _limit(resource.RLIMIT_AS, memory)
    Image.MAX_IMAGE_PIXELS = None  # whoever starts this has checked the size
    try:
        image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(content))
        image.load()
        sys.stdout.buffer.write(image.tobytes())
    except Exception as error:
        sys.stderr.write(str(error) or type(error).__name__)
        return 1
    return 0


def _limit(kind: int, most: int) -> None:
    """At that many CPU seconds a process is sent SIGXCPU, and killed a little later."""
    hard = most + 5 if kind == resource.RLIMIT_CPU else most
    with suppress(ValueError, OSError):  # there is a lower limit; macOS has none of memory
        resource.setrlimit(kind, (most, hard))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""`data:image/png;base64,...` -> the bytes of the image that stands in its task itself."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from ralis_backend.labelstudio.image_addresses import ImageNotAllowed

MAX_DATA_CHARACTERS = 20_000_000
"""Of an image that stands in its task itself: the task list and the database carry it along."""
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def data_image(task_id: int, image: str) -> bytes:
    """The bytes behind a `data:` address.

    Raises:
        ValueError: if it is too long, of no image, or no base64; it is not quoted.
    """
    if len(image) > MAX_DATA_CHARACTERS:
        raise ValueError(
            f"task {task_id}: its data: address has {len(image)} characters, at most "
            f"{MAX_DATA_CHARACTERS} are read; upload the image as a file"
        )
    head, comma, body = image.partition(",")
    kind, *parameters = head[5:].lower().split(";")
    if not comma or (kind and not kind.strip().startswith("image/")):
        raise ImageNotAllowed(
            f"task {task_id}: its data: address is of no image; expected "
            "data:image/png;base64, and the file in base64"
        )
    content = unquote_to_bytes(body)
    if "base64" not in (parameter.strip() for parameter in parameters):
        return content
    try:
        content = bytes(content.translate(_URL_SAFE, b" \t\r\n"))
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"task {task_id}: its data: address is no base64: {error}") from None

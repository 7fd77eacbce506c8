"""What goes wrong between Label Studio and us; every message says what to do.

LabelStudioError     the call was refused, or answered by something else than Label Studio
├── NotFound         404: the project, task or file is gone
├── Unauthorised     401, 403: the token is wrong or may not do this
└── Unavailable      no answer, too late, or 5xx; the same call may succeed later
"""

from __future__ import annotations

from ralis_backend.online.tool import ToolError, ToolNotFound, ToolUnavailable


class LabelStudioError(ToolError):
    """The call was refused, or something else than Label Studio answered."""


class NotFound(LabelStudioError, ToolNotFound):
    """The project, task or file does not exist."""


class Unauthorised(LabelStudioError):
    """The token is wrong, expired, of a kind that is switched off, or may not do this."""


class Unavailable(LabelStudioError, ToolUnavailable):
    """No answer, a late one, or an error of the server; trying again later may help."""

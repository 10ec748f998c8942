"""Refusing a request in the words HoneyHive uses."""

from http import HTTPStatus
from typing import Final

import msgspec

# CPython renames members of HTTPStatus between releases (413 in 3.13); these spellings do not move.
_STEADY_CODES: Final = {413: "PAYLOAD_TOO_LARGE", 422: "UNPROCESSABLE_ENTITY"}


class RefusedError(Exception):
    """A request is not taken; `status` and `message` are what the client is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def error_body(status: int, message: str) -> bytes:
    """Encode the body HoneyHive's services give with any status that is not 2xx.

    Source: `ErrorResponse` of HoneyHive's TypeScript client 1.0.0-rc.3.
    """
    return msgspec.json.encode(
        {"statusCode": status, "message": message, "success": False, "errorCode": _code(status)}
    )


def _code(status: int) -> str:
    try:
        return _STEADY_CODES.get(status) or HTTPStatus(status).name
    except ValueError:
        return "UNKNOWN"

"""Why the control API does not do what it was asked; each with its status in gRPC and in HTTP."""

from __future__ import annotations

from typing import ClassVar


class ControlError(Exception):
    """Base of these; the text says what to do instead and holds no secret."""

    code: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status."""
    http: ClassVar[int] = 500


class InvalidAskError(ControlError):
    """What was asked cannot be understood, or contradicts itself."""

    code = "INVALID_ARGUMENT"
    http = 400


class UnknownNameError(ControlError):
    """There is no such model or sample."""

    code = "NOT_FOUND"
    http = 404


class ImpossibleError(ControlError):
    """It cannot be done here, or not now: a read-only file, nothing to go back to."""

    code = "FAILED_PRECONDITION"
    http = 409


class StaleDigestError(ControlError):
    """Somebody else has changed the policy meanwhile."""

    code = "ABORTED"
    http = 409


class TooLargeError(ControlError):
    """A bound was reached."""

    code = "RESOURCE_EXHAUSTED"
    http = 413


class NoAnswerError(ControlError):
    """No worker answers."""

    code = "UNAVAILABLE"
    http = 503

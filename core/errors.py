"""The one hierarchy of errors that people and programs outside get to see.

Every error is answered as ``{code, message, details, request_id}``. ``code`` is stable and for programs; ``message`` is
Chinese and tells a person what to do next; ``details`` is structured and never holds personal data.
"""

from __future__ import annotations

from typing import Any, ClassVar

from core.plain_text import fit_to_show


class AppError(Exception):
    """An error with an HTTP status, a stable code and a Chinese message that says what to do."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, code: str | None = None, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        # Many a sentence repeats what was given.
        self.message = fit_to_show(message)
        self.code = code or self.default_code
        self.details = _fit_to_show(details or {})


class BadRequest(AppError):
    """400: the request cannot be read: not JSON, not multipart, a header out of form."""

    status = 400
    default_code = "BAD_REQUEST"


class NotSignedIn(AppError):
    """401: no session, or one that has ended."""

    status = 401
    default_code = "NOT_SIGNED_IN"


class Forbidden(AppError):
    """403: known, but not permitted."""

    status = 403
    default_code = "FORBIDDEN"


class NotFound(AppError):
    """404: not there, or not for this person to know of."""

    status = 404
    default_code = "NOT_FOUND"


class Conflict(AppError):
    """409: the state has moved on; ``details`` holds the present one."""

    status = 409
    default_code = "CONFLICT"


class TooLarge(AppError):
    """413: more bytes or pixels than are accepted."""

    status = 413
    default_code = "TOO_LARGE"


class UnsupportedMedia(AppError):
    """415: not a kind of file or body that is accepted, judged by its bytes."""

    status = 415
    default_code = "UNSUPPORTED_MEDIA"


class Invalid(AppError):
    """422: readable, but a value breaks a rule; ``details.fields`` names each one."""

    status = 422
    default_code = "INVALID"


class PreconditionRequired(AppError):
    """428: done twice it happens twice, and the request does not say how a repetition is told from a second wish."""

    status = 428
    default_code = "PRECONDITION_REQUIRED"


class TooManyRequests(AppError):
    """429: over a limit; ``retry_after`` is in whole seconds."""

    status = 429
    default_code = "TOO_MANY_REQUESTS"

    def __init__(self, message: str, *, retry_after: int, code: str | None = None) -> None:
        super().__init__(message, code=code, details={"retry_after": retry_after})
        self.retry_after = retry_after


class Upstream(AppError):
    """502: a service that we depend on (WeChat) answered with an error that the caller cannot mend."""

    status = 502
    default_code = "UPSTREAM"


class Unavailable(AppError):
    """503: a part that is needed does not answer now; trying again later may help."""

    status = 503
    default_code = "UNAVAILABLE"


class OutOfTime(Unavailable):
    """503: it has taken longer than it may. Of a job, the second time is the last."""

    default_code = "OUT_OF_TIME"


def _fit_to_show(given: Any) -> Any:
    if isinstance(given, str):
        return fit_to_show(given)
    if isinstance(given, dict):
        return {_fit_to_show(key): _fit_to_show(value) for key, value in given.items()}
    return [_fit_to_show(each) for each in given] if isinstance(given, list | tuple) else given

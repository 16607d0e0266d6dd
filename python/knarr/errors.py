"""The closed vocabulary of errors.

    KnarrError
    ├── NotFound           the object named does not exist           HTTP 404
    ├── Conflict           it exists, or is in the wrong state       HTTP 409
    │   ├── NotModified    already in the state asked for            HTTP 304
    │   └── Failed         refused, as a failure of Docker's own     HTTP 500
    ├── InvalidArgument    the request itself is wrong               HTTP 400
    ├── PermissionDenied   credentials or policy refuse it           HTTP 403
    │   └── Unauthorized   a registry wants (other) credentials      HTTP 401
    ├── Unavailable        something needed does not answer          HTTP 503
    ├── Corrupt            bytes are not what their digest says      HTTP 500
    ├── Unsupported        known, and deliberately not done          HTTP 501
    └── Internal           a defect of ours                          HTTP 500

Every message says which object, which path, and what to do. `knarr.api.errors` maps these to
HTTP once; `rust/py/src/errors.rs` maps Rust's errors to these once.
"""

__all__ = [
    "Conflict",
    "Corrupt",
    "Failed",
    "Internal",
    "InvalidArgument",
    "KnarrError",
    "NotFound",
    "NotModified",
    "PermissionDenied",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
]


class KnarrError(Exception):
    """Base of every error that knarr raises on purpose."""


class NotFound(KnarrError):
    """The object named does not exist."""


class Conflict(KnarrError):
    """The object exists already, is in use, or is in the wrong state."""


class NotModified(Conflict):
    """The object is already in the state that was asked for."""


class Failed(Conflict):
    """A refusal that Docker reports as a failure of its own: what a mount, a plugin or a state does not allow."""


class InvalidArgument(KnarrError):
    """The request itself is wrong."""


class PermissionDenied(KnarrError):
    """Credentials or policy refuse the request."""


class Unauthorized(PermissionDenied):
    """A registry wants credentials, or others than it was given."""


class Unavailable(KnarrError):
    """Something that is needed does not answer."""


class Corrupt(KnarrError):
    """Bytes are not what their digest or format says."""


class Unsupported(KnarrError):
    """Known to us, and deliberately not done."""


class Internal(KnarrError):
    """A defect of knarr itself."""

"""An archive into a file of the user's: under another name until it is whole."""

import os

from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["write_whole"]


def write_whole(output: str, what: str, write: "Callable[[int], None]") -> None:
    """Have `write` fill a file, by a descriptor; what it leaves unfinished goes. `what` failed: InvalidArgument."""
    temporary = f"{output}.{os.getpid()}.partial"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidArgument(f"failed to {what}: {output}: {error.strerror}") from error
    try:
        write(descriptor)
        os.rename(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)

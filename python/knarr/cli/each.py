"""One verb done to several objects: what worked is named, what didn't is told, and the rest goes on."""

from knarr.cli.terminal import say, show
from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


QUIET = object()  # what an action returns that did nothing worth to be told


def each(names: "list[str]", action: "Callable[[str], object]") -> int:
    """Call the action with each name, which is shown unless it failed or returned QUIET. 1 when any failed."""
    code = 0
    for name in names:
        try:
            done = action(name)
        except KnarrError as error:
            say(f"knarr: {error}")
            code = 1
        else:
            if done is not QUIET:
                show(name)
    return code


def confirm(warning: str) -> bool:
    """Ask on the terminal; anything but y or yes is no."""
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False

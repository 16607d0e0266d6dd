"""Single documents for --format: as JSON, or through a Go template by the names of Docker's own structures.

Those differ from the API's in letter case alone: `.Server.APIVersion` is its `ApiVersion`, `.TimeNano` its `timeNano`.
"""

from knarr.cli.command import UsageError
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.cli.template import Template

WRONG_TEMPLATE = 64  # the exit code


class Fields(dict):  # type: ignore[type-arg]
    """A document whose fields are found in any letter case."""

    def _key(self, name: object) -> object:
        if dict.__contains__(self, name) or not isinstance(name, str):
            return name
        return next((key for key in self if isinstance(key, str) and key.lower() == name.lower()), name)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, self._key(name))

    def get(self, name: object, default: "Any" = None) -> "Any":
        """The value of a field, in any letter case."""
        value = dict.get(self, self._key(name), default)
        return Fields(value) if type(value) is dict else value


def compiled(form: str) -> "Template | None":
    """The template of a --format; None for JSON. UsageError (exit code 64) where it is malformed."""
    from knarr.cli.template import Template, TemplateError

    if form == "json":
        return None
    try:
        return Template(form)
    except TemplateError as error:
        wrong = UsageError(str(error))
        wrong.exit_code = WRONG_TEMPLATE
        raise wrong from error


def write(document: "dict[str, Any]", template: "Template | None") -> None:
    """Show one document."""
    if template is not None:
        show(template.render(Fields(document)))
        return
    from knarr.cli.template_functions import to_json

    show(to_json(document))

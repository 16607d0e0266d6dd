"""Single documents for --format: as JSON, or through a Go template by the names of Docker's own structures.

Those differ from the API's in letter case alone, as Go's names have more capitals: `.Server.APIVersion` is its
`ApiVersion`, `.TimeNano` its `timeNano`, `.ID` its `Id`.
"""

from knarr.cli.command import UsageError
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.cli.template import Template

WRONG_TEMPLATE = 64  # the exit code


class Fields(dict):  # type: ignore[type-arg]
    """A document whose fields are found with more capitals, too. The keys of maps are not: those are the user's."""

    def _key(self, name: object) -> object:
        if dict.__contains__(self, name) or not isinstance(name, str):
            return name
        return next((key for key in self if isinstance(key, str) and _is_capital(name, key)), name)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, self._key(name))

    def get(self, name: object, default: "Any" = None) -> "Any":
        """The value of a field."""
        from knarr.cli.template import MAPS

        value = dict.get(self, self._key(name), default)
        return Fields(value) if type(value) is dict and name not in MAPS else value


def _is_capital(name: str, key: str) -> bool:
    return name.lower() == key.lower() and all(a == b or a.isupper() for a, b in zip(name, key, strict=True))


def compiled(form: str) -> "Template | None":
    """The template of a --format; None for JSON. UsageError (exit code 64) where it is malformed."""
    from knarr.cli.template import Template, TemplateError

    if form == "json":
        return None
    try:
        return Template(form)
    except TemplateError as error:
        raise _wrong(error) from error


def check(template: "Template", document: "dict[str, Any]") -> None:
    """UsageError (exit code 64) where a template does not fit documents like this one."""
    from knarr.cli.template import TemplateError

    try:
        template.render(Fields(document))
    except TemplateError as error:
        raise _wrong(error) from error


def _wrong(error: Exception) -> UsageError:
    wrong = UsageError(str(error))
    wrong.exit_code = WRONG_TEMPLATE
    return wrong


def write(document: "dict[str, Any]", template: "Template | None") -> None:
    """Show one document."""
    if template is not None:
        show(template.render(Fields(document)))
        return
    from knarr.cli.template_functions import to_json

    show(to_json(document))

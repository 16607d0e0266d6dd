"""Lists for people and programs: a table, IDs alone, or what --format asks for.

A row is a dict by Docker's names of fields ({{.Names}}); HEADERS beside each list gives the names of columns, RAW what
--format raw tells of each entry: the words before the fields.
"""

from knarr.cli import human
from knarr.cli.command import UsageError
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def wants_ids(options: "dict[str, Any]") -> bool:
    """Whether -q is to show IDs alone: another --format than the table goes before it."""
    return bool(options["quiet"]) and options["format"] in (None, "", "table")


def write(
    rows: "Sequence[dict[str, Any]]",
    headers: "dict[str, str]",
    columns: "list[str]",
    form: "str | None",
    raw: "dict[str, str] | None" = None,
) -> None:
    """Show the rows. form: None or "table" for the columns; "json"; a template, or "table" and a template; "raw"."""
    for line in lines(rows, headers, columns, form) if form != "raw" or raw is None else raw_lines(rows, raw):
        show(line)


def raw_lines(rows: "Sequence[dict[str, Any]]", raw: "dict[str, str]") -> "list[str]":
    """Fields line by line, entries apart; where it is one field, that of each entry."""
    found = []
    for row in rows:
        found += [f"{word}: {row[field]}".rstrip(" ") for word, field in raw.items()]
        if len(raw) > 1:
            found.append("")
    return found


def lines(
    rows: "Sequence[dict[str, Any]]", headers: "dict[str, str]", columns: "list[str]", form: "str | None"
) -> "list[str]":
    """What `write` shows, of all forms but "raw"."""
    if not form or form == "table":
        cells = [[headers[column] for column in columns]]
        cells += [[str(row[column]) for column in columns] for row in rows]
        return human.table(cells).split("\n")
    from knarr.cli import template, template_functions

    rows = [template_functions.Row(row) for row in rows]
    if form == "json":
        return [template_functions.to_json(row) for row in rows]
    is_table = form.startswith("table")
    source = (form[5:] if is_table else form).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    compiled = template.Template(source)
    shown = [compiled.render(row) for row in rows]
    if not is_table:
        return shown
    shown.insert(0, compiled.header({**headers, "Label": _label_header}, template_functions.HEADER_FUNCTIONS))
    return human.table([line.split("\t") for line in "\n".join(shown).split("\n")]).split("\n")


def _label_header(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def filters(given: "list[str]") -> "dict[str, list[str]]":
    """--filter name=value, several of a name together."""
    result: dict[str, list[str]] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not item:
            continue
        if not equals:
            raise UsageError(f"bad format of filter {item!r} (expected name=value)")
        result.setdefault(name.strip().lower(), []).append(value.strip())
    return result

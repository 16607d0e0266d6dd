"""Lists for people and programs: a table, IDs alone, or what --format asks for.

A row is a dict by Docker's names of fields ({{.Names}}); HEADERS beside each list gives the names of columns.
"""

from knarr.cli import human
from knarr.cli.command import UsageError
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(rows: "list[dict[str, Any]]", headers: "dict[str, str]", columns: "list[str]", form: "str | None") -> None:
    """Show the rows. form: None or "table" for the columns; "json"; a template, or "table" and a template."""
    for line in lines(rows, headers, columns, form):
        show(line)


def lines(
    rows: "list[dict[str, Any]]", headers: "dict[str, str]", columns: "list[str]", form: "str | None"
) -> "list[str]":
    """What `write` shows."""
    if not form or form == "table":
        cells = [[headers[column] for column in columns]]
        cells += [[str(row[column]) for column in columns] for row in rows]
        return human.table(cells).split("\n")
    from knarr.cli import template, template_functions

    rows = [template_functions.Row(row) for row in rows]
    if form == "json":
        return [template_functions.to_json(row) for row in rows]
    is_table = form.startswith("table ")
    source = (form[6:] if is_table else form).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    compiled = template.Template(source)
    shown = [compiled.render(row) for row in rows]
    if not is_table:
        return shown
    shown.insert(0, compiled.render({**headers, "Label": _label_header}, functions=template_functions.HEADER_FUNCTIONS))
    split = [line.split("\t") for line in shown]
    width = max(len(line) for line in split)
    return human.table([line + [""] * (width - len(line)) for line in split]).split("\n")


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

"""The templates of --format: Go's text/template, as far as people use it with container engines.

Understood: text with {{actions}}; trimming ({{- -}}) and comments; fields (.A.B), variables ($x := ...), literals,
parentheses and pipelines; if / else if / else, range, with, break and continue; define, template and block; the
functions of text/template (and, or, not, eq ... ge, len, index, slice, print, printf, println, html, urlquery) and
Docker's (json, join, split, lower, upper, title, pad, truncate). Values are JSON's, and callables for fields that take
arguments ({{.Label "x"}}).

A field that isn't there is an error, as in Docker, except as the condition of an `if` or `with`: what is absent is
false. Go shows nothing in three ways, by its type, which JSON has lost: `MAPS` and `POINTERS` name fields of such
types.
A Template is parsed once and rendered often.
"""

from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_SPACE = " \t\r\n"
# Fields that are maps in Go: nothing is "map[]", and a key that isn't there "<no value>". Of pointers it is "<nil>".
MAPS = {
    *("Annotations", "Attributes", "Data", "DriverOpts", "ExposedPorts", "Labels", "Networks", "Options"),
    *("PortBindings", "Ports", "StorageOpt", "Sysctls", "Tmpfs", "Volumes"),
}
POINTERS = {
    *("GraphDriver", "Health", "Healthcheck", "Init", "MemorySwappiness", "OomKillDisable", "PidsLimit", "Platform"),
    *("StopTimeout", "UsageData"),
}


class TemplateError(InvalidArgument):
    """The template is wrong, or does not fit what it is applied to."""


class _MissingFieldError(TemplateError):
    pass


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template."""

    def __init__(self, source: str) -> None:
        parser = _Parser(source)
        self._nodes = parser.parse()
        self._templates = {**parser.templates, "": self._nodes}

    def header(self, names: "dict[str, Any]", functions: "dict[str, Callable[..., Any]]") -> str:
        """The header of a table whose rows it makes, of the columns' names: what comes of it before the first error."""
        out: list[str] = []
        try:
            self._render(names, functions, out)
        except TemplateError:
            return "".join(out)  # what suits values need not suit names: as in Docker, the header ends there
        return "".join(out)

    def render(self, data: "Any") -> str:
        """The text it makes of the data."""
        out: list[str] = []
        self._render(data, {}, out)
        return "".join(out)

    def _render(self, data: "Any", functions: "dict[str, Callable[..., Any]]", out: "list[str]") -> None:
        from knarr.cli.template_functions import FUNCTIONS

        scope = _Scope(data, {**FUNCTIONS, **functions} if functions else FUNCTIONS, self._templates)
        scope.variables["$"] = data
        try:
            _render(self._nodes, scope, out)
        except RecursionError:
            raise TemplateError("template error: exceeded maximum template depth") from None


class _Scope:
    """The dot, and the variables of one block."""

    __slots__ = ("_outer", "dot", "functions", "templates", "variables")

    def __init__(
        self,
        dot: "Any",
        functions: "dict[str, Callable[..., Any]]",
        templates: "dict[str, list[Any]]",
        outer: "_Scope | None" = None,
    ) -> None:
        self.dot = dot
        self.functions = functions
        self.templates = templates
        self.variables: dict[str, Any] = {}
        self._outer = outer

    def inner(self, dot: "Any") -> "_Scope":
        """The scope of a block within."""
        return _Scope(dot, self.functions, self.templates, self)

    def apart(self, dot: "Any") -> "_Scope":
        """The scope of a template that is called: it sees no variable of its caller."""
        scope = _Scope(dot, self.functions, self.templates)
        scope.variables["$"] = dot
        return scope

    def holder(self, name: str) -> "dict[str, Any]":
        """The variables among which this one was declared."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.variables:
                return scope.variables
            scope = scope._outer  # noqa: SLF001  one of our own
        raise TemplateError(f'template error: undefined variable "{name}"')


# Lexing: text and actions, then the tokens of an action.


def _pieces(source: str) -> "Iterator[tuple[bool, str]]":
    """(whether it is an action, its text), with white space trimmed where an action says so."""
    position, trim = 0, False
    while True:
        start = source.find("{{", position)
        text = source[position:] if start < 0 else source[position:start]
        if trim:
            text = text.lstrip(_SPACE)
        if start < 0:
            yield False, text
            return
        end = _action_end(source, start + 2)
        action = source[start + 2 : end]
        if action.startswith("-") and action[1:2] in _SPACE and len(action) > 1:
            action, text = action[1:], text.rstrip(_SPACE)
        trim = action.endswith("-") and len(action) > 1 and action[-2] in _SPACE
        if trim:
            action = action[:-1]
        yield False, text
        action = action.strip(_SPACE)
        if not (action.startswith("/*") and action.endswith("*/")):
            yield True, action
        position = end + 2


def _action_end(source: str, position: int) -> int:
    quote = ""
    while position < len(source):
        character = source[position]
        if quote:
            if character == "\\" and quote == '"':
                position += 1
            elif character == quote:
                quote = ""
        elif character in '"`':
            quote = character
        elif source.startswith("}}", position):
            return position
        position += 1
    raise TemplateError(f"template parsing error: unclosed action in {source!r}")


def _tokens(action: str) -> "list[str]":
    """Strings keep their opening quote; a field keeps its dot; a space is kept where it parts operands."""
    tokens: list[str] = []
    position = 0
    while position < len(action):
        character = action[position]
        start = position
        if character in _SPACE:
            while position < len(action) and action[position] in _SPACE:
                position += 1
            tokens.append(" ")
            continue
        if character in '"`':
            position += 1
            while position < len(action) and action[position] != character:
                position += 2 if action[position] == "\\" and character == '"' else 1
            if position >= len(action):
                raise TemplateError(f"template parsing error: unterminated string in {{{{{action}}}}}")
            position += 1
        elif action.startswith(":=", position):
            position += 2
        elif character in "()|,=":
            position += 1
        elif character in ".$-+" or character.isalnum() or character == "_":
            position += 1
            while position < len(action) and (action[position].isalnum() or action[position] == "_"):
                position += 1
            number = action[start:position].lstrip("+-")
            if number[:1].isdigit() and action[position : position + 1] == ".":
                position += 1
                while position < len(action) and action[position].isdigit():
                    position += 1
        else:
            raise TemplateError(f"template parsing error: unexpected {character!r} in {{{{{action}}}}}")
        tokens.append(action[start:position])
    return tokens


# Parsing. Nodes are tuples whose first item says what they are.


class _Parser:
    def __init__(self, source: str) -> None:
        self._pieces = list(_pieces(source))
        self._position = 0
        self._loops = 0  # how many {{range}} are around the position
        self._variables = ["$"]  # that are known there
        self.templates: dict[str, list[Any]] = {}  # those that were defined, by their names

    def parse(self) -> "list[Any]":
        nodes, end = self._block(outermost=True)
        if end is not None:
            raise TemplateError(f"template parsing error: unexpected {{{{{end}}}}}")
        return nodes

    def _block(self, *, outermost: bool = False) -> "tuple[list[Any], str | None]":
        """Nodes up to an {{end}} or {{else}}, and that."""
        nodes: list[Any] = []
        while self._position < len(self._pieces):
            is_action, text = self._pieces[self._position]
            self._position += 1
            if not is_action:
                if text:
                    nodes.append(("text", text))
                continue
            word = text.split(None, 1)[0] if text else ""
            if word in ("end", "else"):
                return nodes, text
            if outermost and _is_clause("define", text):
                self._define(*_clause("define", text))
            else:
                nodes.append(self._action(word, text))
        return nodes, None

    def _action(self, word: str, text: str) -> "Any":
        if word in ("break", "continue") and text == word:
            if not self._loops:
                raise TemplateError(f"template parsing error: {{{{{word}}}}} outside {{{{range}}}}")
            return (word,)
        if word in ("if", "range", "with"):
            return self._branch(word, text[len(word) :])
        for clause in ("template", "block"):
            if _is_clause(clause, text):
                name, value = _clause(clause, text)
                if clause == "block":
                    if not value:
                        raise TemplateError("template parsing error: missing value for block clause")
                    self._define(name, "", word="block")
                return ("template", *(_Expression(value, self._variables).parse() if value else ([], [])), name)
        if _is_clause("define", text):
            raise TemplateError("template parsing error: {{define}} stands inside another action: move it out")
        if not text:
            raise TemplateError("template parsing error: missing value for command")
        expression = _Expression(text, self._variables)
        names, commands = expression.parse()
        return ("assign" if expression.assigns else "show", names, commands)

    def _define(self, name: str, rest: str, word: str = "define") -> None:
        """Take in the template up to {{end}}. Empty ones give way to others of their names, as in Go."""
        if rest:
            raise TemplateError(f"template parsing error: unexpected {rest!r} in define clause")
        outside, self._loops, self._variables = (self._loops, self._variables), 0, ["$"]
        body, end = self._block()
        self._loops, self._variables = outside
        if end != "end":
            what = f"unexpected {{{{{end}}}}} in {word} clause" if end else f"{{{{{word}}}}} without {{{{end}}}}"
            raise TemplateError(f"template parsing error: {what}")
        if _is_empty(self.templates.get(name, [])):
            self.templates[name] = body
        elif not _is_empty(body):
            raise TemplateError(f'template parsing error: multiple definition of template "{name}"')

    def _branch(self, word: str, condition: str) -> "Any":
        known = len(self._variables)
        names, pipeline = _Expression(condition, self._variables).parse()
        inside = len(self._variables)
        self._loops += word == "range"
        body, end = self._block()
        self._loops -= word == "range"
        del self._variables[inside:]
        otherwise: list[Any] = []
        if end is not None and end.startswith("else"):
            rest = end[4:].strip(_SPACE)
            if rest:
                inner = rest.split(None, 1)[0]
                if inner != word or word == "range":
                    raise TemplateError(f"template parsing error: unexpected {{{{{end}}}}}")
                otherwise = [self._branch(inner, rest[len(inner) :])]
                end = "end"
            else:
                otherwise, end = self._block()
        del self._variables[known:]
        if end != "end":
            raise TemplateError(f"template parsing error: {{{{{word}}}}} without {{{{end}}}}")
        return (word, names, pipeline, body, otherwise)


def _is_clause(word: str, text: str) -> bool:
    return text.startswith(word) and not (text[len(word) : len(word) + 1].isalnum() or text[len(word) :][:1] == "_")


def _clause(word: str, text: str) -> "tuple[str, str]":
    """(the name, what comes after it) of {{define "name"}}, {{template "name" ...}} and {{block "name" ...}}."""
    rest = text[len(word) :].strip(_SPACE)
    name = _tokens(rest)[0] if rest else ""
    if name[:1] not in ('"', "`"):
        raise TemplateError(f"template parsing error: unexpected {name or '}}'} in {word} clause")
    return _unquote(name), rest[len(name) :].strip(_SPACE)


def _is_empty(nodes: "list[Any]") -> bool:
    return all(node[0] == "text" and not node[1].strip() for node in nodes)


class _Expression:
    """The pipeline of one action: (names it declares, commands); a command is a list of operands."""

    def __init__(self, text: str, variables: "list[str]") -> None:
        self._text = text
        self._variables = variables
        self._tokens = _tokens(text.strip(_SPACE))
        self._position = 0
        self.assigns = False

    def _fail(self, what: str) -> "TemplateError":
        return TemplateError(f"template parsing error: {what} in {{{{{self._text.strip(_SPACE)}}}}}")

    def _peek(self, offset: int = 0) -> str:
        position = self._position + offset
        return self._tokens[position] if position < len(self._tokens) else ""

    def _skip(self) -> None:
        while self._peek() == " ":
            self._position += 1

    def parse(self) -> "tuple[list[str], list[Any]]":
        names = self._declared()
        commands = self._pipeline()
        if self._position < len(self._tokens):
            raise self._fail(f"unexpected {self._peek()!r}")
        return names, commands

    def _declared(self) -> "list[str]":
        meaningful = [word for word in self._tokens if word != " "]
        for sign in (":=", "="):
            if sign in meaningful and meaningful[0].startswith("$"):
                names = [word for word in meaningful[: meaningful.index(sign)] if word != ","]
                self.assigns = sign == "="
                if not all(name.startswith("$") for name in names) or len(names) > 2:
                    raise self._fail("a variable is declared wrongly")
                self._position = self._tokens.index(sign) + 1
                if self.assigns:
                    self._check(names[0])
                else:
                    self._variables += names
                return names
        return []

    def _check(self, name: str) -> None:
        if name not in self._variables:
            raise TemplateError(f'template parsing error: undefined variable "{name}"')

    def _pipeline(self) -> "list[Any]":
        commands = [self._command()]
        while self._peek() == "|":
            self._position += 1
            commands.append(self._command())
        return commands

    def _command(self) -> "list[Any]":
        operands = []
        self._skip()
        while self._peek() not in ("", "|", ")"):
            operands.append(self._operand())
            if self._peek() not in ("", "|", ")", " "):
                raise self._fail(f"unexpected {self._peek()!r}")
            self._skip()
        if not operands:
            raise self._fail("missing value for command")
        return operands

    def _operand(self) -> "Any":
        word = self._peek()
        self._position += 1
        node: Any
        if word == "(":
            node = ("pipe", self._pipeline())
            if self._peek() != ")":
                raise self._fail("unclosed left parenthesis")
            self._position += 1
        elif word == ".":
            return ("dot",)
        elif word.startswith("."):
            node = ("field", ("dot",), word[1:])
        elif word.startswith("$"):
            self._check(word)
            node = ("variable", word)
        elif word[0] in '"`':
            return ("literal", _unquote(word))
        elif word[0].isdigit() or (word[0] in "+-" and word[1:2].isdigit()):
            return ("literal", _number(word, self._fail))
        elif word in ("true", "false", "nil"):
            return ("literal", {"true": True, "false": False, "nil": None}[word])
        elif word[0].isalpha() or word[0] == "_":
            from knarr.cli.template_functions import FUNCTIONS

            if word not in FUNCTIONS and word not in ("and", "or"):
                raise TemplateError(f'template parsing error: function "{word}" not defined')
            return ("function", word)
        else:
            raise self._fail(f"unexpected {word!r}")
        while self._peek().startswith(".") and len(self._peek()) > 1:
            node = ("field", node, self._peek()[1:])
            self._position += 1
        return node


def _unquote(word: str) -> str:
    if word[0] == "`":
        return word[1:-1]
    import json

    try:
        return str(json.loads(word, strict=False))
    except ValueError:
        raise TemplateError(f"template parsing error: malformed string {word}") from None


def _number(word: str, fail: "Callable[[str], TemplateError]") -> "int | float":
    try:
        return float(word) if "." in word else int(word, 0)
    except ValueError:
        raise fail(f"malformed number {word!r}") from None


# Evaluation.


def _render(nodes: "list[Any]", scope: _Scope, out: "list[str]") -> None:
    from knarr.cli.template_functions import to_text, truth

    for node in nodes:
        kind = node[0]
        if kind == "text":
            out.append(node[1])
        elif kind == "assign":
            scope.holder(node[1][0])[node[1][0]] = _evaluate(node[2], scope)
        elif kind == "show":
            value = _evaluate(node[2], scope)
            if node[1]:
                scope.variables[node[1][0]] = value
            else:
                out.append(_nothing(node[2][-1], scope) if value is None else to_text(value))
        elif kind == "template":
            called = scope.templates.get(node[3])
            if called is None:
                raise TemplateError(f'template error: template "{node[3]}" not defined')
            dot = _evaluate(node[2], scope)
            if node[1]:
                scope.variables[node[1][0]] = dot
            _render(called, scope.apart(dot), out)
        elif kind == "break":
            raise _Break
        elif kind == "continue":
            raise _Continue
        else:
            _, names, pipeline, body, otherwise = node
            try:
                value = _evaluate(pipeline, scope)
            except _MissingFieldError:
                value = None
            if not truth(value):
                _render(otherwise, scope, out)
            elif kind == "range":
                _range(value, names, body, scope, out)
            else:
                inner = scope.inner(value if kind == "with" else scope.dot)
                if names:
                    inner.variables[names[0]] = value
                _render(body, inner, out)


def _nothing(command: "list[Any]", scope: _Scope) -> str:
    """How Go shows the nothing that a command came to, by what is known of the field's type."""
    field = command[0]
    if len(command) > 1 or field[0] != "field":
        return "<no value>"
    owner, name = _value(field[1], scope), field[2]
    if not isinstance(owner, dict) or name not in owner or _is_map(field[1]):
        return "<no value>"
    return "map[]" if name in MAPS else "<nil>" if name in POINTERS else "[]"


def _is_map(operand: "Any") -> bool:
    return operand[0] == "field" and operand[2] in MAPS


def _range(value: "Any", names: "list[str]", body: "list[Any]", scope: _Scope, out: "list[str]") -> None:
    items: list[tuple[Any, Any]]
    if isinstance(value, dict):
        items = sorted(value.items())
    elif isinstance(value, int) and not isinstance(value, bool):
        items = [(number, number) for number in range(value)]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    else:
        raise TemplateError(f"template error: range can't iterate over {value!r}")
    for key, item in items:
        inner = scope.inner(item)
        if len(names) == 2:
            inner.variables[names[0]] = key
        if names:
            inner.variables[names[-1]] = item
        try:
            _render(body, inner, out)
        except _Break:
            return
        except _Continue:
            continue


def _evaluate(pipeline: "list[Any]", scope: _Scope) -> "Any":
    value: Any = None
    for number, command in enumerate(pipeline):
        value = _call(command, scope, [value] if number else [])
    return value


def _call(command: "list[Any]", scope: _Scope, piped: "list[Any]") -> "Any":
    first, rest = command[0], command[1:]
    if first[0] == "function":
        name = first[1]
        if name in ("and", "or"):
            return _and_or(name, rest, scope, piped)
        return _apply(name, scope.functions[name], [_value(operand, scope) for operand in rest] + piped)
    value = _value(first, scope)
    arguments = [_value(operand, scope) for operand in rest] + piped
    if callable(value):
        return _apply(first[-1], value, arguments)
    if arguments:
        raise TemplateError(f"template error: can't give argument to non-function {first[-1]}")
    return value


def _apply(name: str, function: "Callable[..., Any]", arguments: "list[Any]") -> "Any":
    try:
        return function(*arguments)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise TemplateError(f"template error: calling {name}: {error}") from error


def _and_or(name: str, operands: "list[Any]", scope: _Scope, piped: "list[Any]") -> "Any":
    from knarr.cli.template_functions import truth

    value: Any = None
    for operand in operands:
        value = _value(operand, scope)
        if truth(value) == (name == "or"):
            return value
    return piped[0] if piped else value


def _value(operand: "Any", scope: _Scope) -> "Any":
    kind = operand[0]
    if kind == "literal":
        return operand[1]
    if kind == "dot":
        return scope.dot
    if kind == "variable":
        return scope.holder(operand[1])[operand[1]]
    if kind == "pipe":
        return _evaluate(operand[1], scope)
    if kind == "function":
        return _call([operand], scope, [])
    owner, name = _value(operand[1], scope), operand[2]
    if isinstance(owner, dict) and (name in owner or _is_map(operand[1])):
        return owner.get(name)
    if owner is None:
        raise _MissingFieldError(f"template error: nil has no field {name}")
    what = "map has no entry for key" if isinstance(owner, dict) else f"{type(owner).__name__} has no field"
    raise _MissingFieldError(f'template error: at <.{name}>: {what} "{name}"')

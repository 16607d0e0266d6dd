"""Every path of the Engine API's document, asked well, oddly and with malice.

No request gets a 500 or no answer at all, every error is {"message": ...} with a status that the document or Docker's
own code has for it, and every JSON that is no error has the form that the document gives it: no field of another type,
none missing that is required, none that the document does not know. openapi.json holds its names and types
(tests/openapi.py makes it).
"""

import json
import random
import re
import time
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.api.http_client import Api, Connection
from tests.conftest import busybox_archive, new_engine, wait_until

DOCUMENT = json.loads((Path(__file__).parent / "openapi.json").read_text())
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
OURS = {"HostConfig.Knarr"}  # fields beyond the document
OURS |= {
    "LayersSize",
    "Images",
    "Containers",
    "Volumes",
    "BuildCache",
}  # Docker's, which it has beside those of the document
# What Docker has 500 for, and so have we: nothing is broken where it comes.
FIVE_HUNDREDS = re.compile(
    r'Container \w+ is not paused|ps: |specifying ".*" is not allowed|.* PID field in ps output|(archive )?the archive|a header\'s checksum'
)
NULLS = {"HostConfig.MemorySwappiness", "HostConfig.OomKillDisable", "ExitCode"}  # Docker's, against the document
ALSO = {400, 404, 405, 409, 413, 501, 503}  # whatever a document forgets; 500 is never among them
ENDLESS = {"/events", "/containers/{id}/logs", "/containers/{id}/stats", "/containers/{id}/wait"}
TAKEN = {("POST", "/containers/{id}/attach"), ("POST", "/exec/{id}/start")}  # no HTTP follows the head

TEXTS = [
    "", "x", "0", "-1", "1", "true", "null", "[]", "{}", "ü", "a/b", "..", "../../etc/passwd", "%", "%00", "a\0b", "a\nb",
    "*", "' OR 1=1 --", "x" * 5000, "18446744073709551616", "1e400", "NaN", '{"label":["a"]}', '{"x":"y"}', '{"x":{}}',
    '{"label":{"a":true}}', '{"until":["x"]}', '{"name":[null]}', '{"id":["' + "f" * 64 + '"]}', "2020-01-01T00:00:00Z",
]  # fmt: skip
VALUES = [None, True, 0, -1, 1 << 70, 1.5, "", "x", "\0", [], [None], ["x"], [[]], {}, {"x": None}, {"x": {}}, {"": []}]
HERE = "127.0.0.1:1"  # where nobody listens: no test asks another machine
FIXED = {  # parameters that would reach out to registries
    "fromImage": ["", f"{HERE}/none", f"{HERE}/none:x", f"{HERE}/UPPER", "a b", "..", "x" * 300],
    "fromSrc": ["", "-", f"http://{HERE}/x", "x"],
    "remote": [f"{HERE}/x", "", "a b"],
    "term": [f"{HERE}/x", ""],
}
NAMES = {"/distribution/{name}/json": [f"{HERE}/x", "..", "a b"], "/images/{name}/push": [f"{HERE}/x", "none", ".."]}
BODIES = {"serveraddress": [HERE, f"http://{HERE}", ""]}


@pytest.fixture(scope="module")
def world():
    own = new_engine()
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield World(own)
    own.stop()


class World:
    """Something for every path to be about, made again when a request has taken it away."""

    def __init__(self, engine):
        self.engine = engine
        self.api = Api(engine)
        self.container = self.exec = ""
        self.read = 0  # of the daemon's log

    def refresh(self):
        status, found = self.api.call("GET", "/containers/walker/json")
        if status != 200 or found["State"]["Status"] not in ("running", "exited"):
            for item in self.api.ok("GET", "/containers/json?all=1"):
                answer = self.api.call("DELETE", f"/containers/{item['Id']}?force=1")
                assert answer[0] in (204, 404) or "already in progress" in answer[1]["message"], (item, answer)
            wait_until(lambda: not self.api.ok("GET", "/containers/json?all=1"), what="the end of the containers")
            found = None
        if found is None:
            script = "echo one; echo two >&2; exec sleep 1000"
            labels = {"walker": "x"}
            host = {"Binds": ["walker:/data"], "NetworkMode": "bridge"}
            self.container = self.api.create(
                "sh", "-c", script, name="walker", Labels=labels, StopSignal="SIGKILL", HostConfig=host
            )
        self.api.call("POST", "/containers/walker/start")
        self.exec = self.api.ok("POST", "/containers/walker/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        self.api.call("POST", "/images/busybox/tag?repo=walker&tag=1")

    def good(self, path):
        if path.startswith("/containers"):
            return "walker"
        if path.startswith("/exec"):
            return self.exec
        if path in NAMES:
            return NAMES[path][0]
        return {"images": "busybox", "networks": "bridge", "volumes": "walker"}.get(path.split("/")[1], "none")


def parameters(operation, chance):
    """A query of a few of its parameters."""
    known = [one for one in operation["parameters"] if one["in"] == "query"]
    chosen = chance.sample(known, chance.randint(0, min(3, len(known)))) if known else []
    query = {one["name"]: chance.choice(FIXED.get(one["name"], TEXTS)) for one in chosen}
    if chance.random() < 0.1:
        query["nobody-knows"] = "x"
    return query


def example(node, chance, depth=0):
    """A value that a schema allows, more or less."""
    node = resolved(node)
    if "enum" in node:
        return chance.choice(node["enum"])
    kind = node.get("type", "object")
    if kind == "object":
        names = list(node["properties"])
        chosen = chance.sample(names, min(len(names), chance.randint(0, 6))) if depth < 3 else []
        return {
            name: chance.choice(BODIES[name])
            if name in BODIES
            else example(node["properties"][name], chance, depth + 1)
            for name in chosen
        }
    if kind == "array":
        return [example(node.get("items", {}), chance, depth + 1) for _ in range(chance.randint(0, 2))]
    return {
        "string": chance.choice(TEXTS[:12]),
        "integer": chance.choice([0, 1, 4096]),
        "boolean": True,
        "number": 1.5,
    }[kind]


def spoiled(value, chance):
    """The same with something odd somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        return {**value, name: spoiled(value[name], chance)}
    return chance.choice(VALUES)


def body(operation, chance):
    """(bytes or None, Content-Type)"""
    schemas = [one for one in operation["parameters"] if one["in"] == "body"]
    if not schemas:
        return (None, "") if chance.random() < 0.8 else (b"{}", "application/json")
    kind = chance.choice(["application/json"] * 8 + ["text/plain", ""])
    roll = chance.random()
    if roll < 0.1:
        return chance.choice([b"", b"{", b"null", b"[]", b'"x"', b"\xff", b"[" * 3000, b'{"a":1}{"b":2}']), kind
    value = example(schemas[0], chance)
    if schemas[0].get("properties", {}).get("Image") or resolved(schemas[0])["properties"].get("Image"):
        value["Image"] = "busybox"
    if roll > 0.5:
        value = spoiled(value, chance)
    return json.dumps(value).encode(), kind


def requests(method, path, world, chance, count):
    """Requests of one operation: a plain one, and then more and more odd ones."""
    operation = DOCUMENT["paths"][path][method.lower()]
    until = f"{time.time():.0f}"
    for number in range(count):
        name = world.good(path)
        if number and chance.random() < 0.25:
            name = chance.choice(NAMES.get(path, TEXTS[1:]))
        query = parameters(operation, chance) if number else {}
        for one in operation["parameters"]:
            if one["in"] == "query" and one.get("required"):
                query.setdefault(one["name"], chance.choice(FIXED.get(one["name"], ["/etc", "x"])))
        if path == "/events":
            query["until"] = until
        data, kind = body(operation, chance) if method not in ("GET", "HEAD") else (None, "")
        prefix = chance.choice(["", "", "/v1.56", "/v1.44", "/v1.24"]) if number else ""
        target = prefix + re.sub(r"\{\w+\}", lambda _, name=name: quote(name, safe=""), path)
        yield target + ("?" + urlencode(query) if query else ""), prefix in ("", "/v1.56"), data, kind


def resolved(node):
    """A schema with its references and allOf put together."""
    found = {"properties": {}}
    while "$ref" in node:
        node = DOCUMENT["definitions"][node["$ref"]]
    for part in node.get("allOf", ()):
        inner = resolved(part)
        found |= {**inner, "properties": {**found["properties"], **inner["properties"]}}
    return {**found, **node, "properties": {**found["properties"], **node.get("properties", {})}}


PLAIN = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict}


def faults(value, node, where=""):
    """What is wrong with a value by its schema: a list of sentences."""
    node = resolved(node)
    kind = node.get("type", "object" if node["properties"] else "")
    if value is None:
        # Go's empty slices, maps and pointers; the document marks few of them
        return (
            []
            if node.get("x-nullable") or kind in ("array", "object", "") or where in NULLS
            else [f"{where}: null is no {kind}"]
        )
    if kind in PLAIN and (not isinstance(value, PLAIN[kind]) or (kind in ("integer", "number") and value is True)):
        return [f"{where}: {value!r} is no {kind}"]
    if "enum" in node and value not in node["enum"]:
        return [f"{where}: {value!r} is none of {node['enum']}"]
    found = []
    if isinstance(value, list):
        for item in value:
            found += faults(item, node.get("items", {}), where + "[]")
    elif isinstance(value, dict) and kind == "object":
        found += [f"{where}: {name} is missing" for name in node.get("required", ()) if name not in value]
        rest = node.get("additionalProperties")
        for name, inner in value.items():
            here = f"{where}.{name}".lstrip(".")
            if name in node["properties"]:
                found += faults(inner, node["properties"][name], here)
            elif isinstance(rest, dict):
                found += faults(inner, rest, here)
            elif node["properties"] and rest is None and here not in OURS:
                found.append(f"{here}: the document knows no such field")
    return found


def ask(world, method, path, target, data, kind):
    """(status, headers, JSON or None) of one request on a connection of its own; fails where nothing is answered."""
    connection = Connection(world.api.path)
    try:
        connection.request(method, target, data, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        content = b""
        if (method, path) not in TAKEN or response.status >= 400:
            endless = path in ENDLESS and response.status == 200
            content = b"" if endless else response.read()
        is_json = response.headers.get("Content-Type", "").startswith("application/json") and content.strip()
        return response.status, content, json.loads(content.splitlines()[0]) if is_json and method != "HEAD" else None
    finally:
        connection.close()


def walk(world, method, path, seed, count):
    operation = DOCUMENT["paths"][path][method.lower()]
    chance = random.Random(f"{seed} {method} {path}")
    found = []
    for target, newest, data, kind in requests(method, path, world, chance, count):
        world.refresh()
        try:
            status, content, answer = ask(world, method, path, target, data, kind)
        except (OSError, ValueError) as error:
            found.append(f"{target[:200]} {(data or b'')[:300]}: {error!r}")
            continue
        known = {int(one) for one in operation["responses"] if one.isdigit()}
        said = f"{target[:200]} {(data or b'')[:300]} {kind}: {status} {content[:300]}"
        if status == 500 and answer and FIVE_HUNDREDS.match(answer["message"]):
            continue
        if status == 500 or status not in known | ALSO:
            found.append(said)
        elif status >= 400:
            if method != "HEAD" and not (
                isinstance(answer, dict) and list(answer) == ["message"] and answer["message"]
            ):
                found.append(f"not an error's form: {said}")
        elif newest and answer is not None and (wanted := operation["responses"].get(str(status))):
            found += [f"{target[:100]}: {fault}" for fault in faults(answer, wanted)]
    assert not found, "\n".join(dict.fromkeys(found))
    log, world.read = world.engine.log()[world.read :], len(world.engine.log())
    assert "Traceback" not in log, log[-3000:]


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
def test_an_operation(world, method, path):
    walk(world, method, path, 0, 6)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
def test_an_operation_at_length(world, method, path):
    walk(world, method, path, 1, 150)

"""A random walk through the API: what one request leaves, the next one finds.

test_openapi.py asks every operation by itself, of a world that is made again. Here containers, images, networks, volumes
and execs come, change and go by requests that mostly make sense (walk_values.py), several at a time, in whatever state the
walk has left them. The same holds of every answer: no 500, a status that the document has, the form of the document. After
the walk the engine can still be emptied, and its log tells of no fault.
"""

import json
import random
import re
import threading
from urllib.parse import quote, urlencode

import pytest

from tests.api import walk_values as values
from tests.api.http_client import Api
from tests.api.test_openapi import ALSO, DOCUMENT, FIVE_HUNDREDS, TEXTS, ask, faults, spoiled
from tests.api.walk_values import NAMES, some
from tests.conftest import busybox_archive, new_engine, wait_until

# What is asked, and how often beside the others.
WEIGHTS = {
    ("POST", "/containers/create"): 10, ("POST", "/containers/{id}/start"): 10, ("DELETE", "/containers/{id}"): 5,
    ("POST", "/containers/{id}/exec"): 4, ("POST", "/exec/{id}/start"): 4, ("POST", "/containers/prune"): 0.1,
    ("POST", "/networks/create"): 2, ("POST", "/networks/{id}/connect"): 3, ("POST", "/networks/prune"): 0.2,
    ("POST", "/volumes/create"): 2, ("POST", "/volumes/prune"): 0.2, ("POST", "/images/prune"): 0.1, ("POST", "/commit"): 1,
}  # fmt: skip
LEFT_OUT = re.compile(
    r"/(auth|build|session|swarm|nodes|services|tasks|secrets|configs|plugins|distribution|images/search|images/\{name\}/push)"
)
STEPS = [
    (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods if not LEFT_OUT.match(path)
]  # fmt: skip
MOST = 12  # containers at a time


class Walk:
    """One who walks, with a connection for each request and a chance of its own."""

    def __init__(self, engine, seed):
        self.engine, self.chance, self.api = engine, random.Random(seed), Api(engine)
        self.execs = ["none"]
        self.found = []

    def walk(self, count):
        weights = [WEIGHTS.get(step, 1) for step in STEPS]
        for number in range(count):
            (step,) = self.chance.choices(STEPS, weights)
            if number % 25 == 0 and len(self.api.ok("GET", "/containers/json?all=1")) > MOST:
                step = ("POST", "/containers/prune")
            self.step(*step)

    def step(self, method, path):
        operation = DOCUMENT["paths"][path][method.lower()]
        query = self.query(operation)
        if path == "/events":
            query |= {"until": "1"}
        data, kind = self.body(method, path, operation)
        if path == "/images/create":
            query |= {"fromSrc": "-"}
            query.pop("fromImage", None)
        target = "/v1.56" + re.sub(r"\{\w+\}", lambda _: quote(self.name(path), safe=""), path)
        answer = self.ask(method, path, target + (f"?{urlencode(query)}" if query else ""), data, kind)
        if path == "/containers/{id}/exec" and answer and "Id" in answer:
            self.execs = [*self.execs[-2:], answer["Id"]]
        if method != "GET" and self.chance.random() < 0.5:
            self.look(path)

    def look(self, path):
        """See what has become of it."""
        noun = path.split("/")[1]
        for seen in {
            "containers": ("/containers/{id}/json", "/containers/json"),
            "networks": ("/networks/{id}", "/networks"),
            "volumes": ("/volumes/{name}", "/volumes"),
            "exec": ("/exec/{id}/json",),
        }.get(noun, ("/images/json", "/images/{name}/json")):
            target = "/v1.56" + re.sub(r"\{\w+\}", lambda _, seen=seen: quote(self.name(seen), safe=""), seen)
            self.ask("GET", seen, target + ("?all=1" if seen == "/containers/json" else ""), None, "")

    def name(self, path):
        if self.chance.random() < 0.03:
            return self.chance.choice(TEXTS[1:])
        if path.startswith("/exec"):
            return self.chance.choice(self.execs)
        if path.startswith("/images"):
            return self.chance.choice(["walk:1", "walk:loaded", "walk/b:1", "walk:2", "walk"])
        if path.startswith("/networks"):
            return self.chance.choice([*self.networks(), *NAMES[:2], "bridge", "none"])
        if path.startswith("/containers"):
            known = [
                one["Names"][0].lstrip("/") for one in self.api.ok("GET", "/containers/json?all=1") if one["Names"]
            ]
            return self.chance.choice([*known, NAMES[0]])
        return self.chance.choice(NAMES)

    def query(self, operation):
        known = [one for one in operation["parameters"] if one["in"] == "query"]
        chosen = self.chance.sample(known, self.chance.randint(0, min(3, len(known))))
        chosen += [one for one in known if one.get("required") and one not in chosen]
        # A container of a known name is one that the others find.
        chosen += [one for one in known if one["name"] in ("name", "t", "stdout", "container") and one not in chosen]
        found = {one["name"]: self.chance.choice(values.QUERY.get(one["name"], NAMES)) for one in chosen}
        if chosen and self.chance.random() < 0.1:
            name = self.chance.choice(chosen)["name"]
            found[name] = self.chance.choice(values.ODD_QUERY.get(name, TEXTS))
        return found

    def body(self, method, path, operation):
        """(bytes or None, Content-Type)"""
        if path in values.BINARY and method in ("PUT", "POST"):
            return self.chance.choice(values.BINARY[path]), "application/x-tar"
        if method not in ("PUT", "POST") or not any(one["in"] == "body" for one in operation["parameters"]):
            return None, ""
        chance = self.chance
        value = {
            "/containers/create": self.container,
            "/containers/{id}/update": lambda: some(values.UPDATE, values.ODD_HOST, chance),
            "/containers/{id}/exec": lambda: {"Cmd": ["true"], **some(values.EXEC, values.ODD_EXEC, chance)},
            "/exec/{id}/start": lambda: {"Detach": chance.random() < 0.6, "Tty": chance.random() < 0.2},
            "/commit": lambda: some(values.CONFIG, values.ODD_CONFIG, chance),
            "/networks/create": lambda: {"Name": chance.choice(NAMES), **some(values.NETWORK, values.ODD_NETWORK, chance)},
            "/networks/{id}/connect": lambda: {"Container": chance.choice(NAMES), "EndpointConfig": some(values.ENDPOINT, values.ODD_ENDPOINT, chance)},
            "/networks/{id}/disconnect": lambda: {"Container": chance.choice(NAMES), "Force": chance.random() < 0.5},
            "/volumes/create": lambda: some(values.VOLUME, values.ODD_VOLUME, chance),
        }.get(path, dict)()  # fmt: skip
        if chance.random() < 0.05:
            value = spoiled(value, chance)
        return json.dumps(value).encode(), "application/json"

    def container(self):
        chance = self.chance
        body = {"Image": "busybox", "Cmd": chance.choice(values.RUNS), "StopSignal": "SIGKILL"}
        body |= some(values.CONFIG, values.ODD_CONFIG, chance)
        body["HostConfig"] = some(values.HOST, values.ODD_HOST, chance)
        known = self.networks()
        if known and chance.random() < 0.4:
            name = chance.choice(known)
            body["HostConfig"]["NetworkMode"] = name
            settings = some(values.ENDPOINT, values.ODD_ENDPOINT, chance)
            body["NetworkingConfig"] = {"EndpointsConfig": {name: settings}}
        return body

    def networks(self):
        return [one["Name"] for one in self.api.ok("GET", "/networks") if one["Name"] in NAMES]

    def ask(self, method, path, target, data, kind):
        """The answer's JSON; what is wrong with it is noted."""
        said = f"{method} {target[:200]} {(data or b'')[:500]}"
        try:
            status, content, answer = ask(self, method, path, target, data, kind)
        except (OSError, ValueError) as error:
            self.found.append(f"{said}: {error!r}")
            return None
        operation = DOCUMENT["paths"][path][method.lower()]
        known = {int(one) for one in operation["responses"] if one.isdigit()}
        if status == 500 and answer and FIVE_HUNDREDS.match(answer["message"]):
            return None
        if status == 500 or status not in known | ALSO:
            self.found.append(f"{said}: {status} {content[:300]}")
        elif status >= 400:
            if method != "HEAD" and not (isinstance(answer, dict) and list(answer) == ["message"]):
                self.found.append(f"not an error's form: {said}: {status} {content[:300]}")
        elif answer is not None and (wanted := operation["responses"].get(str(status))):
            self.found += [f"{said}: {fault}" for fault in faults(answer, wanted)]
        return answer if status < 400 else None


@pytest.fixture
def own():
    engine = new_engine()
    engine.start()
    engine.run("load", "-q", "-i", busybox_archive())
    engine.run("tag", "busybox", "walk:1")
    yield engine
    engine.stop()


def walk(engine, seed, walkers, count):
    walks = [Walk(engine, f"{seed} {number}") for number in range(walkers)]
    threads = [threading.Thread(target=one.walk, args=(count,)) for one in walks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [fault for one in walks for fault in one.found]
    assert not found, "\n".join(dict.fromkeys(found))
    api = Api(engine)
    for item in api.ok("GET", "/containers/json?all=1"):
        if item["State"] == "paused":
            api.call("POST", f"/containers/{item['Id']}/unpause")
        status, answer = api.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")
        assert status in (204, 404) or "already in progress" in answer["message"], answer
    wait_until(lambda: not api.ok("GET", "/containers/json?all=1"), 20, what="the end of the containers")
    api.ok("POST", "/networks/prune")
    assert {one["Name"] for one in api.ok("GET", "/networks")} == {"bridge", "host", "none"}
    for one in api.ok("GET", "/volumes")["Volumes"] or ():
        api.ok("DELETE", f"/volumes/{one['Name']}")
    assert "Traceback" not in engine.log(), engine.log()[-3000:]


def test_a_walk(own):
    walk(own, 0, 1, 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_a_walk_at_length(own, seed):
    walk(own, seed, 3, 700)

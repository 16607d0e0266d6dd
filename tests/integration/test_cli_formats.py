"""--format of knarr's verbs beside the docker command line on the same engine."""

import json
import re

import pytest

from tests.security.registry_server import Answer, Server


@pytest.fixture(scope="module")
def engine(shared_engine):
    """An engine with a container that runs, a volume and an image with a date."""
    shared_engine.run("volume", "create", "--label", "x=y", "formats")
    shared_engine.run("run", "-d", "--name", "formats", "--label", "a=b", "--network", "none", "-v", "formats:/data", "busybox", "sleep", "600")  # fmt: skip
    shared_engine.run("commit", "formats", "formats:1")
    yield shared_engine
    shared_engine.run("rm", "-f", "formats")
    shared_engine.run("rmi", "formats:1")
    shared_engine.run("volume", "rm", "formats")


def both(engine, *arguments):
    """What each of the two says, and exits with: ages and shares change from one call to the next."""
    said = []
    for program in (engine.run, engine.docker):
        done = program(*arguments, check=False)
        text = re.sub(r"(\d+|About a|Less than a) (second|minute)s?( ago)?", "AGE", done.stdout)
        text = re.sub(r"\d+\.\d+%", "SHARE", text).rstrip("\n")
        said.append((re.sub(" {4,}", "   ", text) if "AGE" in text else text, done.returncode))
    return said


LISTS = [
    ("ps",), ("ps", "-a", "-s"), ("ps", "--no-trunc"), ("images", "formats"), ("images", "--digests", "formats"),
    ("volume", "ls", "-f", "name=formats"), ("network", "ls"), ("history", "-H=false", "formats:1"), ("system", "df"),
]  # fmt: skip


@pytest.mark.parametrize("verb", LISTS, ids=" ".join)
@pytest.mark.parametrize(
    "form",
    ["table", "raw", "table{{.ID}}", "table {{.Names}}\\t{{.ID}}", "{{.Size}}", "table {{json .Name}}", "{{.Nope}}"],
)
def test_lists(engine, verb, form):
    ours, theirs = both(engine, *verb, "--format", form)
    assert ours == theirs


@pytest.mark.parametrize("verb", [*LISTS, ("stats", "--no-stream", "formats"), ("stats", "--no-stream")], ids=" ".join)
def test_lists_as_json(engine, verb):
    (ours, code), (theirs, _) = both(engine, *verb, "--format", "{{json .}}")
    assert code == 0
    gone = {"VirtualSize"}  # of images, since docker 29
    for mine, other in zip(map(json.loads, ours.splitlines()), map(json.loads, theirs.splitlines()), strict=True):
        assert mine.keys() >= other.keys() - gone
        changing = gone | {"CPUPerc", "MemPerc", "MemUsage", "Containers"}
        assert {key: mine[key] for key in other.keys() - changing} == {
            key: other[key] for key in other.keys() - changing
        }
    keyword = engine.run(*verb, "--format", "json").stdout.splitlines()
    assert [json.loads(line).keys() for line in keyword] == [json.loads(line).keys() for line in ours.splitlines()]
    table, *rows = engine.run(*verb, "--format", "table x{{json .}}").stdout.splitlines()
    assert table == "x"  # the header ends where a function does not take it
    assert len(rows) == len(keyword)


@pytest.mark.parametrize(
    "verb",
    [("ps",), ("images", "formats"), ("volume", "ls"), ("network", "ls"), ("images", "--no-trunc")],
    ids=" ".join,
)
@pytest.mark.parametrize("form", ["table", "raw", "{{.ID}}{{.Name}}{{.Tag}}", "table {{.Driver}}{{.Repository}}"])
def test_quiet_lists(engine, verb, form):
    if "{" in form:  # one field each
        form = {"volume": form.replace("{{.ID}}", "").replace("{{.Tag}}", "").replace("{{.Repository}}", "")}.get(verb[0], "{{.ID}}")  # fmt: skip
    ours, theirs = both(engine, *verb, "-q", "--format", form)
    assert ours == theirs


HEADERS = [
    'table {{upper .Names}}\\t{{len .Names}}\\t{{truncate .ID 3}}\\t{{.Label "a"}}\\t{{title .State}}',
    'table {{join (split .Names "e") "/"}}\\t{{printf "%q" .ID}}',
    "table {{pad .Names 1 2}}|",
    'table {{range split .Labels ","}}{{.}};{{end}}',
    'table {{printf "%d" (len .ID)}}',
    "table {{println .ID}}\\t{{.Names}}",
    "table {{.Names}}{{if .ID}}\\t{{.ID}}\\tx{{end}}",
]


@pytest.mark.parametrize("form", HEADERS)
def test_headers_of_tables(engine, form):
    ours, theirs = both(engine, "ps", "--format", form)
    assert ours == theirs


def test_disk_usage_in_detail(engine):
    (ours, _), (theirs, _) = both(engine, "system", "df", "-v", "--format", "{{json .}}")
    ours, theirs = json.loads(ours), json.loads(theirs)
    assert list(ours) == list(theirs)
    for kind, rows in theirs.items():
        for mine, other in zip(ours[kind], rows, strict=True):
            assert mine.keys() >= other.keys() - {"VirtualSize"}
            assert all(mine[key] == other[key] for key in ("ID", "Name", "Labels", "Links", "Digest") if key in other)
    short = json.loads(engine.run("system", "df", "-v", "--format", "table {{json .}}").stdout)
    assert {len(row["ID"]) for row in short["Containers"]} == {12}
    (ours, _), (theirs, _) = both(engine, "system", "df", "-v", "--format", "raw")
    words = [[line.partition(":")[0] for line in text.splitlines()] for text in (ours, theirs)]
    assert words[0] == words[1]


@pytest.mark.parametrize("form", ["{{.ID}}", "{{.Id}}", "{{.HostConfig.NanoCPUs}}", "{{.State.status}}", "{{.id}}", "a\\t{{.Name}}", "{{.Config.Labels.A}}"])  # fmt: skip
def test_details_by_docker_s_names(engine, form):
    ours, theirs = both(engine, "inspect", "--format", form, "formats")
    assert (ours[0].strip(), ours[1]) == (theirs[0].strip(), theirs[1])


def test_processes_are_listed_in_docker_s_columns(engine):
    ours, theirs = both(engine, "top", "formats", "-o", "pid,comm,args")
    assert ours == theirs


def test_details_as_json(engine):
    found = json.loads(engine.run("inspect", "--format", "json", "formats").stdout)
    assert [one["Name"] for one in found] == ["/formats"]
    nothing = engine.run("inspect", "--format", "json", "no-such", check=False)
    assert (nothing.stdout, nothing.returncode) == ("[]\n", 1)


@pytest.mark.parametrize("form", ["{{.ID}} {{.Status}} {{.From}} {{.Type}}", "{{.Actor.Nope}}", "table {{.Action}}", "{{.Nope}}"])  # fmt: skip
def test_events(engine, form):
    """A template that does not fit is refused before anything happens."""
    times = ("--since", "0", "--until", "0s", "--filter", "event=create", "--filter", "event=start")
    ours, theirs = both(engine, "events", *times, "--filter", "type=container", "--filter", "container=formats", "--format", form)  # fmt: skip
    assert ours == theirs


def test_results_of_a_search(engine):
    found = {"name": "made/one", "description": "First", "star_count": 7, "is_official": True}
    with Server(lambda request: Answer(200, json.dumps({"results": [found]}).encode())) as server:
        term = f"{server.host}/one"
        for form in (
            "table {{.Name}}\\t{{.StarCount}}",
            "{{.Name}} {{.Description}} {{.IsOfficial}}",
            "{{json .Name}}",
        ):
            ours, theirs = both(engine, "search", "--format", form, term)
            assert ours == theirs
            assert "made/one" in ours[0]
        shown = json.loads(engine.run("search", "--format", "json", term).stdout)
        assert shown.keys() == {"Description", "IsAutomated", "IsOfficial", "Name", "StarCount"}


@pytest.mark.parametrize(
    "form",
    [
        '{{define "n"}}[{{.Name}}]{{end}}x{{template "n" .}}',
        '{{template "n"}}{{define "n"}}[{{.}}]{{end}}',
        '{{block "b" .State}}{{.Status}}{{end}}|{{template "b" .State}}',
        '{{range .Config.Cmd}}{{template "c" .}}{{end}}{{define "c"}}<{{.}}>{{end}}',
        '{{define "n"}}{{template "m" .Config}}{{end}}{{define "m"}}{{json .Labels}}{{end}}{{template "n" .}}',
        '{{define "n"}}y{{end}}{{define "n"}} {{end}}{{template "n"}}',
        '{{define "n"}}y{{end}}{{define "n"}}z{{end}}',
        '{{template "n"}}',
        "{{template n}}",
        '{{if true}}{{define "n"}}{{end}}{{end}}',
        '{{define "n"}}x',
        '{{block "n"}}{{end}}',
        '{{define "n"}}{{template "n"}}{{end}}{{template "n"}}',
        "{{nope}}",
        '{{$x := 1}}{{define "n"}}{{$x}}{{end}}{{template "n"}}',
        "{{if false}}{{$x}}{{end}}",
        "{{if $x := .Name}}{{$x}}{{else}}{{$x}}{{end}}",
        "{{with $x := .Name}}{{$y := $x}}{{$y}}{{end}}{{$x := 2}}{{$x = 3}}{{$x}}",
        "{{range $i, $n := .Config.Cmd}}{{$i}}{{$n}}{{else with $z := 1}}{{$z}}{{end}}",
    ],
)
def test_templates_of_templates(engine, form):
    ours, theirs = (program("inspect", "-f", form, "formats", check=False) for program in (engine.run, engine.docker))
    assert (ours.stdout.strip(), ours.returncode) == (theirs.stdout.strip(), theirs.returncode)
    assert not ours.returncode or "template" in ours.stderr

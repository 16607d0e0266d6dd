"""--format: templates, tables, and the words for sizes and durations."""

import time

import pytest

from knarr.cli import human, images, listing, ps
from knarr.cli.template import Template, TemplateError
from knarr.errors import InvalidArgument

DATA = {
    "ID": "abc",
    "State": {"Status": "running", "Pid": 5, "Error": "", "Running": True},
    "Names": ["a", "b"],
    "Config": {"Labels": {"x.y": "z"}, "Env": None},
    "HostConfig": {"PortBindings": None, "PidsLimit": None, "Binds": None},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}},
    "Label": lambda name: name + "!",
    "Size": 1.0,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }} {{.State.Status}} {{.State.Pid}}", "abc running 5"),
        ("{{json .State}}", '{"Status":"running","Pid":5,"Error":"","Running":true}'),
        ("{{.State | json}}", '{"Status":"running","Pid":5,"Error":"","Running":true}'),
        ("{{range .Names}}{{.}},{{end}}", "a,b,"),
        ("{{range $i, $n := .Names}}{{if $i}}-{{end}}{{$n}}{{end}}", "a-b"),
        ("{{range $k, $v := .NetworkSettings.Ports}}{{$k}} {{end}}", "80/tcp 81/tcp "),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{range .Names}}{{.}}{{break}}{{end}}", "a"),
        ('{{range .Names}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .NetworkSettings.Ports "80/tcp"}}{{(index . 0).HostPort}}{{end}}', "8080"),
        ('{{index .Config.Labels "x.y"}}', "z"),
        ('{{index .Config.Labels "none"}}', ""),
        ('{{join .Names ", " | upper}}', "A, B"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ('{{if eq .State.Status "x" "running"}}yes{{else if .ID}}no{{end}}', "yes"),
        ('{{if ne .State.Status "running"}}yes{{else if .ID}}no{{end}}', "no"),
        ("{{if and .State.Running (gt .State.Pid 4)}}up{{end}}", "up"),
        ("{{not .State.Error}} {{or .State.Error .ID}}", "true abc"),
        ('{{.Label "q"}}', "q!"),
        ('{{printf "%-5s|%3d|%q|%v%%" .ID .State.Pid "a" true}}', 'abc  |  5|"a"|true%'),
        ('{{println "x" 1}}', "x 1\n"),
        ('{{print 1 2 "x" 3}}', "1 2x3"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("{{len .Names}} {{.Names}} {{.Config}}", "2 [a b] map[Env:<nil> Labels:map[x.y:z]]"),
        ("{{with .State}}{{.Pid}}{{$.ID}}{{end}}", "5abc"),
        ('{{/* a comment */}}a{{"}}"}}{{`{{`}}', "a}}{{"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{.Config.Env}}", "[]"),
        ('{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{title "foo bar"}}|{{lower "AB"}}', " x  |abc|Foo Bar|ab"),
        ('{{range split "a:b" ":"}}{{.}} {{end}}', "a b "),
        ("{{slice .ID 1 3}}{{.Size}}", "bc1"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        # What JSON has lost is known by the fields' names: as Docker's typed values show it.
        ("{{.HostConfig.PortBindings}} {{.HostConfig.PidsLimit}} {{.HostConfig.Binds}}", "map[] <nil> []"),
        ("{{json .HostConfig.Binds}} {{len .HostConfig.Binds}} {{if .HostConfig.Binds}}x{{end}}", "null 0 "),
        ("{{.Config.Labels.none}} {{.Config.Labels.none | json}}", "<no value> null"),
        ('{{index .HostConfig.PortBindings "80/tcp"}}|{{join .HostConfig.Binds ","}}|', "||"),
        ("{{$n := 0}}{{range .Names}}{{$n = 1}}{{end}}{{$n}}", "1"),
        ("{{$n := 0}}{{range .Names}}{{$n := 1}}{{end}}{{$n}}", "0"),
        ("{{$x := .ID}}{{with .State}}{{$x}} {{.Pid}} {{$.ID}}{{end}}", "abc 5 abc"),
        ('{{title "busy-box_a b.c"}} {{len "ä"}} {{slice "abc" 1}}', "Busy-Box_a B.C 2 bc"),
        ('{{html "<a>"}} {{urlquery "a b&c"}}', "&lt;a&gt; a+b%26c"),
        ('{{"\t"}}|{{printf "%.3s %-5d|%05d|%x" "abcdef" 4 5 255}}', "\t|abc 4    |00005|ff"),
        ('{{json .Names | printf "%s"}} {{.ID | len}} {{(len .Names) | printf "%03d"}}', '["a","b"] 3 002'),
        ('{{lt "a" "b"}} {{ge 3 2}} {{and true ""}}|{{or "" "x"}} {{not 0}} {{ne 1 2}}', "true true |x true true"),
        ("{{if eq .State.Running true}}yes{{end}}{{with .State.Error}}bad{{else with .ID}}{{.}}{{end}}", "yesabc"),
        ('{{define "n"}}[{{.}}]{{end}}x{{template "n" .ID}}', "x[abc]"),
        ('{{range .Names}}{{template "n" .}}{{end}}{{define `n`}}<{{.}}>{{end}}', "<a><b>"),
        ('{{template "n"}}{{define "n"}}{{.}}{{end}}', "<no value>"),
        ('{{block "b" .State}}{{.Status}}{{end}} {{template "b" .State}}', "running running"),
        ('{{block "b" 1}}{{block "c" 2}}{{.}}{{end}}{{.}}{{end}}{{template "c" 7}}', "217"),
        ('{{define "s"}}{{$.Pid}}{{end}}{{template "s" .State}}{{$.ID}}', "5abc"),
        ('{{template "n" $v := .ID}}{{$v}}{{define "n"}}{{. | upper}}{{end}}', "ABCabc"),
        ('{{- define "n" -}} x {{- end -}} z {{template "n"}}', "z x"),
        ('{{define "n"}}y{{end}}{{define "n"}} {{/* empty ones give way */}}{{end}}{{template "n"}}', "y"),
        ('{{range .Names}}{{template "n" $.Names}}{{end}}{{define "n"}}{{range .}}{{.}}{{break}}{{end}}{{end}}', "aa"),
    ],
)
def test_templates(source, text):
    assert Template(source).render(DATA) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.State.Nope.Deeper}}", "Nope"),
        ("{{.Config.Env.X}}", "nil has no field"),
        ("{{range .Names}}", "without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nope 1}}", 'function "nope" not defined'),
        ("{{.ID", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{(.ID}}", "unclosed left parenthesis"),
        ('{{"x}}', "unclosed action"),
        ("{{.ID 1}}", "can't give argument"),
        ("{{$x}}", "undefined variable"),
        ("{{index .Names 7}}", "out of range"),
        ("{{range .ID}}{{end}}", "can't iterate"),
        ("{{.ID | }}", "missing value"),
        ('{{slice "abc" 5}}', "out of range"),
        ("{{slice .Names 1 3}}", "out of range"),
        ('{{eq 1 "a"}}', "incompatible types"),
        ("{{.ID}}{{break}}", "outside {{range}}"),
        ("{{$x = 1}}", "undefined variable"),
        ("{{range .Names}}{{$x := .}}{{end}}{{$x}}", "undefined variable"),
        ("{{upper 3}}", "calling upper"),
        ("{{if false}}{{$x}}{{end}}", "undefined variable"),
        ("{{if $x := 1}}{{else}}{{$x}}{{end}}{{$x}}", "undefined variable"),
        ("{{range $i, $n := .Names}}{{$y := 1}}{{else}}{{$y}}{{end}}", "undefined variable"),
        ('{{with $x := 1}}{{block "b" .}}{{$x}}{{end}}{{end}}', "undefined variable"),
        ("{{if false}}{{nope}}{{end}}", 'function "nope" not defined'),
        ("{{if false}}{{break}}{{end}}", "outside {{range}}"),
        ('{{template "n"}}', 'template "n" not defined'),
        ("{{template n}}", "unexpected n in template clause"),
        ('{{define "n" .}}{{end}}', "unexpected '.' in define clause"),
        ('{{define "n"}}x', "{{define}} without {{end}}"),
        ('{{define "n"}}{{else}}{{end}}', "unexpected {{else}} in define clause"),
        ('{{if true}}{{define "n"}}{{end}}{{end}}', "{{define}} stands inside another action"),
        ('{{define "n"}}x{{end}}{{define "n"}}y{{end}}', 'multiple definition of template "n"'),
        ('{{block "n"}}{{end}}', "missing value for block clause"),
        ('{{range .Names}}{{block "n" .}}{{break}}{{end}}{{end}}', "outside {{range}}"),
        ('{{$x := 1}}{{define "n"}}{{$x}}{{end}}{{template "n"}}', "undefined variable"),
        ('{{define "n"}}{{template "n"}}{{end}}{{template "n"}}', "exceeded maximum template depth"),
    ],
)
def test_templates_that_do_not_work(source, message):
    with pytest.raises(TemplateError) as caught:
        Template(source).render(DATA)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (3070000, "3.07MB"), (1.12e9, "1.12GB"), (258123456, "258MB")],
)
def test_sizes(count, text):
    assert human.size(count, 3) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations(seconds, text):
    assert human.duration(seconds) == text


def port(private, public=None, address=None, protocol="tcp"):
    return {
        "PrivatePort": private,
        "Type": protocol,
        **({"PublicPort": public} if public else {}),
        **({"IP": address} if address else {}),
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(81), port(80), port(82), port(90)], "80-82/tcp, 90/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(80, 80, "0.0.0.0"), port(81, 81, "0.0.0.0")], "0.0.0.0:80-81->80-81/tcp"),
        ([port(53, protocol="udp"), port(53)], "53/tcp, 53/udp"),
    ],
)
def test_ports(given, text):
    assert ps.ports(given) == text


CONTAINER = {
    "Id": "0123456789abcdef" * 4,
    "Names": ["/other/link", "/web"],
    "Image": "busybox",
    "ImageID": "sha256:ff",
    "Command": "sh -c 'sleep 1000000'",
    "Created": 0,
    "State": "running",
    "Status": "Up 2 minutes",
    "Ports": [],
    "Labels": {"b": "2", "a": "1"},
    "Mounts": [{"Type": "volume", "Name": "a-volume-of-a-long-name", "Driver": "local"}],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}


def test_the_table_of_containers(capsys):
    row = ps.row({**CONTAINER, "Created": int(time.time()) - 130}, full=False)
    listing.write([row], ps.HEADERS, ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"], None)
    assert capsys.readouterr().out == (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS     NAMES\n"
        '0123456789ab   busybox   "sh -c \'sleep 100000…"   2 minutes ago   Up 2 minutes             web\n'
    )


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            "{{.ID}} {{.Labels}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}}",
            "0123456789ab a=1,b=2 a-volume-of-a-… bridge 1\n",
        ),
        ("table {{.Names}}\\t{{.State}}", "NAMES     STATE\nweb       running\n"),
        ('table {{.Names | upper}}\\t{{.Label "a"}}', "NAMES     a\nWEB       1\n"),
    ],
)
def test_formats_of_containers(capsys, form, text):
    listing.write([ps.row(CONTAINER, full=False)], ps.HEADERS, [], form)
    assert capsys.readouterr().out == text


def test_a_row_as_json_is_sorted_and_safe_in_html(capsys):
    row = {"Ports": "80->80/tcp", "ID": "a", "Label": lambda name: name}
    for form in ("json", "{{json .}}"):
        listing.write([row], {}, [], form)
        assert capsys.readouterr().out == '{"ID":"a","Ports":"80-\\u003e80/tcp"}\n'
    listing.write([row], {}, [], "{{json .Ports}}")
    assert capsys.readouterr().out == '"80->80/tcp"\n'


def test_rows_of_images():
    image = {
        "Id": "sha256:" + "ab" * 32,
        "RepoTags": ["busybox:latest", "h:5000/x:1"],
        "RepoDigests": ["busybox@sha256:cd"],
        "Created": 0,
        "Size": 1000,
    }
    assert [
        (row["Repository"], row["Tag"], row["Digest"]) for row in images._rows(image, full=False, digests=True)
    ] == [
        ("busybox", "latest", "sha256:cd"),
        ("h:5000/x", "1", "<none>"),
    ]
    dangling = {**image, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    assert [
        (row["Repository"], row["Tag"], row["ID"]) for row in images._rows(dangling, full=False, digests=False)
    ] == [("<none>", "<none>", "ab" * 6)]


def test_filters():
    assert listing.filters(["name=a", "name=b", "Label=x=y"]) == {"name": ["a", "b"], "label": ["x=y"]}
    with pytest.raises(InvalidArgument, match="bad format of filter"):
        listing.filters(["name"])

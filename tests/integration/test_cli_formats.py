"""--format of knarr's verbs beside the docker command line on the same engine."""

import pytest


@pytest.fixture(scope="module")
def engine(shared_engine):
    """An engine with a container that runs."""
    shared_engine.run("run", "-d", "--name", "formats", "--label", "a=b", "--network", "none", "busybox", "sleep", "600")  # fmt: skip
    yield shared_engine
    shared_engine.run("rm", "-f", "formats")


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
    ],
)
def test_templates_of_templates(engine, form):
    ours, theirs = (program("inspect", "-f", form, "formats", check=False) for program in (engine.run, engine.docker))
    assert (ours.stdout.strip(), ours.returncode) == (theirs.stdout.strip(), theirs.returncode)
    assert not ours.returncode or "template" in ours.stderr

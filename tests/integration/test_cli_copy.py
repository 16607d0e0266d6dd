"""knarr cp, diff and export, and docker cp beside them: every row of docker cp's table, with both programs."""

import io
import os
import stat
import subprocess
import tarfile
import uuid

import pytest

from tests.conftest import tar_of, wait_until


@pytest.fixture(params=["knarr", "docker"])
def program(request, shared_engine):
    """`knarr cp` or `docker cp`: (exit code, what it said)."""

    def run(*arguments, **more):
        call = shared_engine.run if request.param == "knarr" else shared_engine.docker
        result = call("cp", *arguments, check=False, **more)
        return result.returncode, result.stdout + result.stderr

    run.name = request.param
    return run


def is_refused(said, container, path):
    """Whether it is said that there is no such file; docker 20.10 has a sentence of its own for it."""
    return f"Could not find the file {path} in container {container}" in said or (
        f"No such container:path: {container}:{path}" in said
    )


@pytest.fixture
def box(shared_engine):
    """A running container with /d (a directory with a file f), /f (a file), /link to /d and /lost to nothing."""
    name = "cp-" + uuid.uuid4().hex[:8]
    script = (
        "mkdir /d; echo in >/d/f; echo file >/f; ln -s d /link; ln -s /none/where /lost; touch /ready; exec sleep 1000"
    )
    shared_engine.run("run", "-d", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
    wait_until(lambda: shared_engine.run("exec", name, "test", "-e", "/ready", check=False).returncode == 0)
    yield name
    shared_engine.run("rm", "-f", name)


@pytest.fixture
def inside(shared_engine, box):
    def read(script):
        return shared_engine.run("exec", box, "sh", "-c", script).stdout

    return read


@pytest.fixture
def here(tmp_path):
    """Files of the user's own: a file `file`, a directory `tree` with `tree/leaf`."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/leaf").write_text("leaf")
    return tmp_path


def test_a_file_into_a_container(program, box, inside, here):
    # DEST is missing, a file, a directory; and missing with a slash at its end.
    assert program(here / "file", f"{box}:/new")[0] == 0
    assert inside("cat /new") == "mine"
    assert program(here / "file", f"{box}:/f")[0] == 0
    assert inside("cat /f") == "mine"
    assert program(here / "file", f"{box}:/d")[0] == 0
    assert inside("cat /d/file") == "mine"
    assert program(here / "file", f"{box}:/link/")[0] == 0
    code, said = program(here / "file", f"{box}:/missing/")
    assert code == 1
    assert "no such directory" in said
    code, said = program(here / "file", f"{box}:/no/where")
    assert code == 1
    assert is_refused(said, box, "/no")


def test_a_directory_into_a_container(program, box, inside, here):
    assert program(here / "tree", f"{box}:/new")[0] == 0
    assert inside("cat /new/leaf") == "leaf"
    assert program(here / "tree", f"{box}:/d")[0] == 0
    assert inside("cat /d/tree/leaf") == "leaf"
    assert program(f"{here}/tree/.", f"{box}:/d")[0] == 0
    assert inside("cat /d/leaf") == "leaf"
    assert program(f"{here}/tree/.", f"{box}:/newer")[0] == 0
    assert inside("cat /newer/leaf") == "leaf"
    code, said = program(here / "tree", f"{box}:/f")
    assert code == 1
    assert "cannot copy directory" in said
    code, said = program(here / "file", f"{box}:/")
    assert code == 0
    code, said = program(here / "tree", f"{box}:/")
    assert inside("cat /file /tree/leaf") == "mineleaf"
    inside("rm -r /tree; echo x >/tree")
    code, said = program(here / "tree", f"{box}:/")
    assert code == 1
    assert 'cannot overwrite non-directory "tree" with directory "/"' in said


def test_a_file_out_of_a_container(program, box, here):
    assert program(f"{box}:/f", here / "new")[0] == 0
    assert (here / "new").read_text() == "file\n"
    assert program(f"{box}:/f", here / "file")[0] == 0
    assert (here / "file").read_text() == "file\n"
    assert program(f"{box}:/f", here / "tree")[0] == 0
    assert (here / "tree/f").read_text() == "file\n"
    code, said = program(f"{box}:/f", f"{here}/missing/")
    assert code == 1
    assert "no such directory" in said
    code, said = program(f"{box}:/f", here / "no/where")
    assert code == 1
    assert f'invalid output path: directory "{here}/no" does not exist' in said
    code, said = program(f"{box}:/none", here)
    assert code == 1
    assert is_refused(said, box, "/none")


def test_a_directory_out_of_a_container(program, box, here):
    assert program(f"{box}:/d", here / "new")[0] == 0
    assert (here / "new/f").read_text() == "in\n"
    assert program(f"{box}:/d", here / "tree")[0] == 0
    assert (here / "tree/d/f").read_text() == "in\n"
    assert program(f"{box}:/d/.", here / "tree")[0] == 0
    assert (here / "tree/f").read_text() == "in\n"
    assert program(f"{box}:/d/.", here / "newer")[0] == 0
    assert (here / "newer/f").read_text() == "in\n"
    code, said = program(f"{box}:/d", here / "file")
    assert code == 1
    assert "cannot copy directory" in said


def test_links_are_copied_as_links_unless_they_are_followed(program, box, here):
    assert program(f"{box}:/link", here / "link")[0] == 0
    assert os.readlink(here / "link") == "d"
    assert program("-L", f"{box}:/link", here / "followed")[0] == 0
    assert (here / "followed/f").read_text() == "in\n"
    (here / "into").mkdir()
    assert program("-L", f"{box}:/link", here / "into")[0] == 0
    assert (here / "into/link/f").read_text() == "in\n"
    assert program(f"{box}:/lost", here / "lost")[0] == 0
    assert os.readlink(here / "lost") == "/none/where"


def test_links_of_the_users_own(program, box, inside, here):
    (here / "to").symlink_to("tree")
    assert program(here / "to", f"{box}:/aslink")[0] == 0
    assert inside("readlink /aslink") == "tree\n"
    assert program("-L", here / "to", f"{box}:/followed")[0] == 0
    assert inside("cat /followed/leaf") == "leaf"
    assert program("-L", here / "to", f"{box}:/d")[0] == 0
    assert inside("cat /d/to/leaf") == "leaf"
    # A destination that is a link is followed.
    assert program(here / "file", f"{box}:/link")[0] == 0
    assert inside("cat /d/file") == "mine"


def test_archives_through_stdin_and_stdout(program, box, inside, shared_engine):
    call = [program.name] if program.name == "docker" else [os.path.join(os.environ.get("VENV", ".venv"), "bin/knarr")]
    data = tar_of([("piped", b"through")])
    subprocess.run([*call, "cp", "-", f"{box}:/d"], input=data, env=shared_engine.env, check=True, capture_output=True)
    assert inside("cat /d/piped") == "through"
    out = subprocess.run([*call, "cp", f"{box}:/d", "-"], env=shared_engine.env, check=True, capture_output=True).stdout
    with tarfile.TarFile(fileobj=io.BytesIO(out)) as archive:
        assert archive.getnames() == ["d", "d/f", "d/piped"]
    refused = subprocess.run(
        [*call, "cp", "-", f"{box}:/f"], input=data, env=shared_engine.env, capture_output=True, check=False
    )
    assert refused.returncode == 1
    assert f'destination "{box}:/f" must be a directory' in refused.stderr.decode()


def test_owners_modes_and_times(program, box, inside, here):
    (here / "file").chmod(0o6751)
    os.chown(here / "file", 1234, 2345)
    os.chmod(here / "file", 0o6751)
    os.utime(here / "file", (1_600_000_000, 1_600_000_000))
    assert program("-a", here / "file", f"{box}:/kept")[0] == 0
    assert inside("stat -c '%a %u %g %Y' /kept") == "6751 1234 2345 1600000000\n"
    inside("chown 77:88 /kept; chmod 6751 /kept")
    assert program(f"{box}:/kept", here / "back")[0] == 0
    found = (here / "back").stat()
    assert (found.st_uid, found.st_gid, int(found.st_mtime)) == (os.geteuid(), os.getegid(), 1_600_000_000)
    assert stat.S_IMODE(found.st_mode) == 0o6751


def test_what_cannot_be_meant(program, box, inside, here):
    inside("mknod /null c 1 3")
    cases = [
        ((f"{box}:/f", f"{box}:/g"), "copying between containers is not supported"),
        ((here / "file", here / "other"), "must specify at least one container source"),
        (("", f"{box}:/"), "source can not be empty"),
        ((f"{box}:/f", ""), "destination can not be empty"),
        ((here / "none", f"{box}:/"), "no such file or directory"),
        (
            (here / "file", f"{box}:/null"),
            f'destination "{box}:/null" must be a directory or a regular file: got a device',
        ),
        (("none:/x", here), "No such container: none"),
        ((here / "file", "none:/x"), "No such container: none"),
    ]
    for arguments, words in cases:
        code, said = program(*arguments)
        assert code == 1, arguments
        assert words in said.replace(":path: none:/", ": none"), (arguments, said)  # the words of docker 20.10


def test_a_local_path_with_a_colon(program, box, inside, here):
    (here / "a:b").write_text("colon")
    assert program("./a:b", f"{box}:/", cwd=here)[0] == 0
    assert inside("cat /a:b") == "colon"
    assert program(f"{box}:/a:b", "./back", cwd=here)[0] == 0
    assert (here / "back").read_text() == "colon"


def test_what_was_copied_is_said_on_a_terminal_only(shared_engine, box, here):
    assert shared_engine.run("cp", here / "file", f"{box}:/x").stderr == ""
    said = shared_engine.run("cp", "--quiet=false", here / "file", f"{box}:/x").stderr
    assert said == f"Successfully copied 4B (transferred 2.05kB) to {box}:/x\n"
    said = shared_engine.run("cp", "--quiet=false", f"{box}:/x", here / "file").stderr
    assert said == f"Successfully copied 4B (transferred 2.05kB) to {here}/file\n"


def test_diff_and_export(shared_engine, box, here):
    expected = "A /d\nA /d/f\nA /f\nA /link\nA /lost\nA /ready\n"
    assert shared_engine.run("diff", box).stdout == expected
    assert shared_engine.run("container", "diff", box).stdout == expected
    assert shared_engine.docker("diff", box).stdout == expected
    shared_engine.run("export", "-o", here / "all.tar", box)
    assert stat.S_IMODE((here / "all.tar").stat().st_mode) == 0o600
    piped = subprocess.run(["docker", "export", box], env=shared_engine.env, check=True, capture_output=True).stdout
    for data in ((here / "all.tar").read_bytes(), piped):
        with tarfile.TarFile(fileobj=io.BytesIO(data)) as archive:
            assert {"d/f", "bin/busybox", "etc/passwd", "lost"} <= set(archive.getnames())
    assert shared_engine.run("export", "-o", here / "none" / "x", box, check=False).returncode == 1
    assert shared_engine.run("export", "-o", here / "x", "none", check=False).returncode == 1
    assert sorted(path.name for path in here.iterdir()) == ["all.tar", "file", "tree"]

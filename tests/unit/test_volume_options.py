"""The local driver's options, read as Docker reads them, and the kernel's table of mounts."""

import pytest

from knarr.engine.volumes.local import Bind, FileSystem, check, read
from knarr.engine.volumes.mounts import mounted_below, unescape
from knarr.errors import InvalidArgument


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, None),
        ({"type": "", "device": ""}, None),
        ({"type": "tmpfs", "device": "tmpfs"}, FileSystem("tmpfs", "tmpfs", 0, 0, "")),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=h,ro,,nosuid,vers=4"},
            FileSystem("nfs", ":/x", 3, 0, "addr=h,vers=4"),
        ),
        ({"type": "ext4", "device": "/dev/x", "o": "ro,rw,noatime"}, FileSystem("ext4", "/dev/x", 0x400, 0, "")),
        ({"type": "none", "device": "/a", "o": "bind"}, Bind("/a", False, ())),
        ({"type": "none", "device": "/a", "o": "rbind,ro,nodev"}, Bind("/a", True, ("ro", "nodev"))),
        ({"type": "none", "device": "/a", "o": "bind,uid=7"}, Bind("/a", False, ())),  # which the kernel ignores
        ({"type": "none", "device": "/a", "o": "bind,rslave"}, FileSystem("none", "/a", 0x1000, 0x84000, "")),
        ({"type": "none", "device": "/a", "o": "ro"}, FileSystem("none", "/a", 1, 0, "")),
    ],
)
def test_what_options_ask_for(options, found):
    assert read(options) == found


def test_what_options_may_not_be():
    for options in (
        {},
        {"size": "1g"},
        {"type": "x", "device": "y"},
        {"type": "cifs", "device": "//host/x", "o": "port=4"},
    ):
        check(options)
    for options, message in (
        ({"Type": "x"}, 'invalid option: "Type"'),
        ({"type": "x", "o": "y"}, 'missing required option: "device"'),
        ({"type": "cifs", "device": "//host:1/x"}, "port not allowed"),
        ({"type": "cifs", "device": "//[::1/x"}, "error parsing mount device url"),
        ({"type": "x", "device": "y\0"}, "NUL"),
        ({"size": "many"}, "invalid size: 'many'"),
        ({"size": "1g", "type": "tmpfs", "device": "tmpfs"}, 'option "size" is for volumes without'),
        ({"size": "1g", "o": "ro"}, 'option "size" is for volumes without'),
    ):
        with pytest.raises(InvalidArgument, match=message):
            check(options)


def test_the_table_of_mounts(tmp_path):
    assert unescape(r"/a\040b\134c") == r"/a b\c"
    assert mounted_below(str(tmp_path)) == set()

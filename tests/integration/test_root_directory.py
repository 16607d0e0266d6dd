"""The root directory of a container is what its image says, not what its upper layer happens to be."""

import tarfile

from tests.conftest import busybox_layer, oci_archive, tar_of


def test_owner_and_mode_of_the_root_are_the_images(busybox, tmp_path):
    root = tarfile.TarInfo("./")
    root.type, root.mode, root.uid, root.gid = tarfile.DIRTYPE, 0o1751, 1000, 2000
    archive = tmp_path / "rooted.tar"
    later = tar_of([("later", b"a layer that says nothing of the root")])
    archive.write_bytes(
        oci_archive([busybox_layer(), tar_of([(root, None)]), later], {"Env": ["PATH=/bin"]}, "rooted:1")
    )
    busybox.run("load", "-q", "-i", archive)
    assert busybox.run("run", "--rm", "rooted:1", "stat", "-c", "%a %u %g", "/").stdout == "1751 1000 2000\n"

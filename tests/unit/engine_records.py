"""Records of containers for tests that need no engine."""

import copy

from knarr.store.containers import CONFIG_DEFAULTS, HOST_DEFAULTS, ContainerRecord, State

ID = "0123456789abcdef" * 4


def config(**values):
    return copy.deepcopy(CONFIG_DEFAULTS) | {"Hostname": "here", "Image": "busybox"} | values


def host(**values):
    return copy.deepcopy(HOST_DEFAULTS) | {"NetworkMode": "none"} | values


def record(config_values=None, mounts=(), **host_values):
    return ContainerRecord(
        id=ID,
        name="one",
        image_id="sha256:" + "a" * 64,
        created_ns=1,
        config=config(**(config_values or {})),
        host=host(**host_values),
        path="/bin/true",
        args=["x"],
        platform="linux/amd64",
        manifest_digest="",
        mounts=list(mounts),
        anonymous_volumes=[],
        state=State(),
    )

"""Which verb is in which module: what is looked up before anything of it is imported.

A command is "module.NAME" below `knarr.cli`. Groups are Docker's nouns; most of their verbs are top-level verbs too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from knarr.cli.command import Command

COMMANDS = {
    "run": "run.RUN",
    "create": "run.CREATE",
    "start": "start.START",
    "attach": "start.ATTACH",
    "exec": "execs.EXEC",
    "stop": "lifecycle.STOP",
    "kill": "lifecycle.KILL",
    "restart": "lifecycle.RESTART",
    "wait": "lifecycle.WAIT",
    "rm": "lifecycle.RM",
    "pause": "lifecycle.PAUSE",
    "unpause": "lifecycle.UNPAUSE",
    "rename": "lifecycle.RENAME",
    "ps": "ps.PS",
    "cp": "copy.CP",
    "commit": "commit.COMMIT",
    "import": "commit.IMPORT",
    "diff": "files.DIFF",
    "export": "files.EXPORT",
    "logs": "logs.LOGS",
    "top": "ps.TOP",
    "port": "ps.PORT",
    "inspect": "inspect.INSPECT",
    "pull": "pull.PULL",
    "push": "push.PUSH",
    "save": "save.SAVE",
    "load": "load.LOAD",
    "images": "images.IMAGES",
    "rmi": "images.RMI",
    "tag": "images.TAG",
    "history": "images.HISTORY",
    "login": "login.LOGIN",
    "logout": "login.LOGOUT",
    "search": "login.SEARCH",
    "stats": "stats.STATS",
    "update": "update.UPDATE",
    "events": "events.EVENTS",
    "version": "versions.VERSION",
    "info": "info.INFO",
    "daemon": "system.DAEMON",
}
_CONTAINER_VERBS = (
    "run",
    "create",
    "start",
    "attach",
    "exec",
    "stop",
    "kill",
    "restart",
    "wait",
    "rm",
    "pause",
    "unpause",
    "rename",
    "commit",
    "cp",
    "diff",
    "export",
    "logs",
    "top",
    "port",
    "stats",
    "update",
)
GROUPS = {
    "container": {
        **{verb: COMMANDS[verb] for verb in _CONTAINER_VERBS},
        "ls": COMMANDS["ps"],
        "list": COMMANDS["ps"],
        "ps": COMMANDS["ps"],
        "inspect": "inspect.CONTAINER",
        "remove": COMMANDS["rm"],
        "prune": "lifecycle.PRUNE",
    },
    "image": {
        "ls": COMMANDS["images"],
        "list": COMMANDS["images"],
        "rm": COMMANDS["rmi"],
        "remove": COMMANDS["rmi"],
        "pull": COMMANDS["pull"],
        "push": COMMANDS["push"],
        "save": COMMANDS["save"],
        "load": COMMANDS["load"],
        "import": COMMANDS["import"],
        "tag": COMMANDS["tag"],
        "history": COMMANDS["history"],
        "inspect": "inspect.IMAGE",
        "prune": "images.PRUNE",
    },
    "network": {
        "connect": "networks.CONNECT",
        "create": "networks.CREATE",
        "disconnect": "networks.DISCONNECT",
        "inspect": "inspect.NETWORK",
        "lb": "balancing.BALANCE",
        "ls": "networks.LIST_NETWORKS",
        "list": "networks.LIST_NETWORKS",
        "prune": "networks.PRUNE",
        "rm": "networks.REMOVE",
        "remove": "networks.REMOVE",
    },
    "system": {
        "df": "disk.DF",
        "events": COMMANDS["events"],
        "info": COMMANDS["info"],
        "prune": "prune.PRUNE",
    },
    "volume": {
        "create": "volumes.CREATE",
        "ls": "volumes.LIST_VOLUMES",
        "list": "volumes.LIST_VOLUMES",
        "rm": "volumes.REMOVE",
        "remove": "volumes.REMOVE",
        "prune": "volumes.PRUNE",
        "inspect": "inspect.VOLUME",
        "clone": "volume_copies.CLONE",
        "export": "volume_copies.EXPORT",
        "import": "volume_copies.IMPORT",
        "rename": "volume_copies.RENAME",
        "restore": "volume_copies.RESTORE",
        "snapshot": "volume_copies.SNAPSHOT",
        "snapshots": "volume_copies.SNAPSHOTS",
    },
}
GROUP_HELP = {
    "container": "Work with containers",
    "image": "Work with images",
    "network": "Work with networks",
    "system": "Work with the engine as a whole",
    "volume": "Work with volumes",
}


def load(where: str) -> "Command":
    """Import a command."""
    module, _, name = where.partition(".")
    imported = __import__(f"knarr.cli.{module}", fromlist=[name])
    command: Command = getattr(imported, name)
    return command


def find(words: "list[str]") -> "tuple[str, Command | None, list[str]]":
    """(its name, the command or None, what follows) of ["image", "ls", "-q"]."""
    name, rest = words[0], words[1:]
    if name in GROUPS:
        if rest and rest[0] in GROUPS[name]:
            return f"{name} {rest[0]}", load(GROUPS[name][rest[0]]), rest[1:]
        return name, None, rest
    if name in COMMANDS:
        return name, load(COMMANDS[name]), rest
    return name, None, rest

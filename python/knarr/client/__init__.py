"""A client of the Docker Engine API, for knarr's daemon or any other engine that speaks it.

    from knarr.client import Client

    with Client() as client:
        created = client.containers.create({"Image": "busybox", "Cmd": ["true"]})
        client.containers.start(created["Id"])
        print(client.containers.wait(created["Id"])["StatusCode"])

Methods take and return the API's own JSON as dicts and lists, and raise `knarr.errors` by HTTP status.
The modules:

    codec.py       JSON without the standard library's json package, which costs 5 ms to import
    http.py        HTTP/1.1 over Unix and TCP sockets: keep-alive, chunks, streams, hijacked connections
    tls.py         TLS on such a connection: Client(host, tls=Tls(...)), imported where it is used
    frames.py      the multiplexed stdout/stderr stream of attach, exec and logs
    launch.py      starts the daemon when nothing listens
    engine.py      Client: host, connections, errors; one attribute a noun
    containers.py execs.py images.py networks.py volumes.py    the nouns
"""

from knarr.client.engine import Client

__all__ = ["Client"]

"""Containers: from a request to a record, from a record to a running process, and back to nothing.

Layout: `request` checks what was asked for; `create` makes a record of it; `spec` and the modules
it uses turn a record into an OCI runtime specification; `lifecycle` starts, stops and reacts to exits;
`removal`, `execs`, `logs`, `processes` are what their names say; `containers` is the face of it all.

Locking: each container has one asyncio.Lock, held over a start, over the storing of an exit and
over a removal; never while waiting for a container to end.
"""

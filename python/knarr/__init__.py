"""knarr: a fast container engine that installs with pip and speaks Docker's API.

`knarr.client` is the library, `knarr.cli` the command line. Importing this package imports nothing else.
"""

__version__ = "0.1.0"

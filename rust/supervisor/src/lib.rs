//! The parent of every container: event loop, stdio, logs, exits.

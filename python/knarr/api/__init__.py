"""The Docker Engine API over HTTP: decode, call the engine, encode. No decisions here."""

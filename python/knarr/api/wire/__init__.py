"""What goes over the wire: pydantic models of request bodies, and functions from records to answers."""

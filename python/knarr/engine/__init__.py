"""Everything that decides. `engine.engine.Engine` is the only place where the parts meet."""

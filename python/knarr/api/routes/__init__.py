"""One module a noun, each with `routes(engine) -> list[web.RouteDef]`, paths without a version prefix."""

"""Distil the Engine API's OpenAPI document: python tests/openapi.py DOCUMENT.yaml > tests/api/openapi.json

What is kept: of each path and method the parameters, the schema of the body, the kinds of answers and their schemas;
of each definition its type, properties and what is required. No text of the document is.
"""

import json
import sys

KEPT = ("type", "format", "enum", "required", "allOf", "additionalProperties", "items", "properties", "$ref")
KEPT += ("x-nullable", "minimum", "maximum")


def schema(node):
    """A schema without its texts and examples."""
    found = {}
    for key, value in node.items():
        if key not in KEPT:
            continue
        if key == "properties":
            found[key] = {name: schema(inner) for name, inner in value.items()}
        elif key == "required" and isinstance(value, list):
            found[key] = [name for name in value if "properties" not in node or name in node["properties"]]
        elif key == "allOf":
            found[key] = [schema(inner) for inner in value]
        elif isinstance(value, dict):
            found[key] = schema(value)
        elif key == "$ref":
            found[key] = value.removeprefix("#/definitions/")
        else:
            found[key] = value
    return found


def parameter(node):
    """A parameter: its name, where it stands, and its schema."""
    found = {"name": node["name"], "in": node["in"], **schema(node.get("schema", node))}
    if node["in"] != "body" and not node.get("required"):
        found.pop("required", None)
    return found


def distil(document):
    """The document's names and types."""
    paths = {}
    for path, methods in document["paths"].items():
        shared = methods.get("parameters", [])
        for method, node in methods.items():
            if method == "parameters":
                continue
            answers = {}
            for status, written in node["responses"].items():
                answer = written
                if "$ref" in written:
                    answer = document["responses"][written["$ref"].removeprefix("#/responses/")]
                answers[str(status)] = schema(answer["schema"]) if "schema" in answer else None
            paths.setdefault(path, {})[method] = {
                "parameters": [parameter(one) for one in [*shared, *node.get("parameters", [])]],
                "produces": node.get("produces", ["application/json"]),
                "responses": answers,
            }
    definitions = {name: schema(node) for name, node in document["definitions"].items()}
    return {"version": document["info"]["version"], "paths": paths, "definitions": definitions}


if __name__ == "__main__":
    import yaml

    with open(sys.argv[1], encoding="utf-8") as file:
        json.dump(distil(yaml.safe_load(file)), sys.stdout, sort_keys=True, separators=(",", ":"))

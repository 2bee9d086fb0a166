"""The document in, whether each of its examples fits the schema that it is an example of out."""

import json
import sys

from openapi_schema_validator import OAS31Validator


def media_types(document):
    """Every body with its schema, and where it stands."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for name, body in bodies.items():
                for media in body.get("content", {}).values():
                    yield f"{method} {path} {name}", media


def resolved(document, value):
    while "$ref" in value:
        found = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def examples(document):
    for where, media in media_types(document):
        schema = media["schema"]
        if "example" in media:
            yield where, schema, media["example"]
        for example in media.get("examples", {}).values():
            yield where, schema, resolved(document, example)["value"]
    for name, schema in document["components"]["schemas"].items():
        if "example" in schema:
            yield name, {"$ref": f"#/components/schemas/{name}"}, schema["example"]


def main(file):
    with open(file, encoding="utf-8") as text:
        document = json.load(text)
    seen, wrong = 0, []
    for where, schema, example in examples(document):
        seen += 1
        validator = OAS31Validator({**schema, "components": document["components"]})
        wrong += [f"{where}: {error.message}" for error in validator.iter_errors(example)]
    print("\n".join(wrong), f"{seen} examples", sep="\n")
    sys.exit(1 if wrong or seen < 50 else 0)


main(sys.argv[1])

"""What the chart renders is compared with what an API server would take, and strictly: no field that is not known.

The schemas of Kubernetes' own kinds come from its OpenAPI document, the others from their CustomResourceDefinitions.
Null is not taken in place of a value: it is mostly a template that rendered nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]

_PREFIX: Final = "#/definitions/"
_EITHER: Final[Schema] = {"type": ["string", "integer"]}
_QUANTITY: Final[Schema] = {"type": ["string", "number"]}
_QUANTITY_NAME: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_IDENTITY: Final = ("apiVersion", "kind", "metadata")


def file_name(group: str, version: str, kind: str) -> str:
    """Where kubeconform looks under `{{.ResourceKind}}{{.KindSuffix}}.json`."""
    return "-".join(filter(None, (kind.lower(), group.partition(".")[0], version))) + ".json"


def of_kubernetes(document: Mapping[str, Any], kinds: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, Schema]]:
    """Schemas of kinds, each with the definitions that it needs, by the name of its file.

    Args:
        document: Kubernetes' api/openapi-spec/swagger.json
        kinds: group, version and kind of each

    Raises:
        KeyError: the document does not know a kind.
    """
    definitions: dict[str, Schema] = {name: strict(one) for name, one in document["definitions"].items()}
    definitions[_QUANTITY_NAME] = _QUANTITY
    known = {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, one in document["definitions"].items()
        for gvk in one.get("x-kubernetes-group-version-kind", ())
    }
    for group, version, kind in kinds:
        name = known[group, version, kind]
        needed = {one: definitions[one] for one in _reached(definitions, name)}
        yield file_name(group, version, kind), {**identified(definitions[name]), "definitions": needed}


def of_definition(crd: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Schemas of each version of a CustomResourceDefinition, by the name of the file."""
    spec = crd["spec"]
    for version in spec["versions"]:
        schema = identified(strict(version["schema"]["openAPIV3Schema"]))
        yield file_name(spec["group"], version["name"], spec["names"]["kind"]), schema


def identified(schema: Schema) -> Schema:
    """The same, of an object that says what it is and how it is called."""
    return {**schema, "required": sorted({*schema.get("required", ()), *_IDENTITY})}


def strict(schema: Any) -> Any:
    """The same, taking only the properties that are known, and numbers for text where the API server does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return dict(_EITHER)
    kept = {key: value for key, value in schema.items() if key not in {"format", "description", "default", "example"}}
    made = {key: _properties(value) if key == "properties" else strict(value) for key, value in kept.items()}
    open_to_all = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if made.get("properties") and not open_to_all:
        made["additionalProperties"] = False
    return made


def _properties(properties: Mapping[str, Any]) -> Schema:
    # A property may be called as a keyword of schemas is.
    return {name: strict(value) for name, value in properties.items()}


def _reached(definitions: Mapping[str, Schema], name: str) -> set[str]:
    found, ahead = set[str](), [name]
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead.extend(_references(definitions[one]))
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_PREFIX)
            else:
                yield from _references(value)


def write(schemas: Iterable[tuple[str, Schema]], folder: Path) -> None:
    """Write each schema into its file."""
    for name, schema in schemas:
        (folder / name).write_text(json.dumps(schema))

"""Parts of the OpenAPI document that FastAPI cannot derive, because the routes read their bodies themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from .bodies import FILE_FIELD
from .negotiation import JSON

BINARY = {"schema": {"type": "string", "format": "binary"}}


def form_body(parameters: type[BaseModel], other: Iterable[str] = ()) -> dict[str, Any]:
    """Return the `requestBody` of a photo: a form with the photo and the parameters, or the bare bytes."""
    fields = {FILE_FIELD: {"type": "string", "format": "binary", "description": "The photo"}}
    fields |= schema_of(parameters)["properties"]
    form = {"type": "object", "properties": fields, "required": [FILE_FIELD], "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, **dict.fromkeys(other, BINARY)},
        }
    }


def json_body(model: type[BaseModel], other: Iterable[str] = ()) -> dict[str, Any]:
    """Return the `requestBody` of a JSON document, or of text in other media types."""
    content = {JSON: {"schema": schema_of(model)}}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in other}
    return {"requestBody": {"required": True, "content": content}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a Pydantic model's JSON schema with what it refers to put in place."""
    schema = model.model_json_schema()
    return _resolved(schema, schema.pop("$defs", {}))


def _resolved(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolved(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolved(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _resolved(value, definitions) for key, value in part.items()}

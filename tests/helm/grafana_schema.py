"""The JSON schema of our Grafana dashboards: the classic model, closed to what we do not use.

Written after Grafana's documentation of the model (Dashboard JSON model, classic; panels of type
row, timeseries and stat; schema version 39) and the typed models of Grafana's own SDK. Stricter
than those: each object names all fields that it may have, so that a field that Grafana would
silently drop is a fault, and each query names its source.
"""

from typing import Any

Schema = dict[str, Any]

WIDTH = 24
UNITS = ["s", "short", "reqps", "bytes", "percentunit", "watt", "currencyUSD"]
"""Ids of Grafana's units that we use; one that it does not know would be shown as a suffix."""


def closed(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def several(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "integer", "minimum": 1}
FLAG: Schema = {"type": "boolean"}
SOURCE = closed({"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}})
PLACE = closed({
    "x": {"type": "integer", "minimum": 0, "maximum": WIDTH - 1},
    "y": {"type": "integer", "minimum": 0},
    "w": {"type": "integer", "minimum": 1, "maximum": WIDTH},
    "h": {"type": "integer", "minimum": 1},
})  # fmt: skip
TIME = {"type": "string", "pattern": r"^now(-[0-9]+[smhdwMy])?$"}

TARGET = closed({
    "refId": {"type": "string", "pattern": "^[A-Z]$"},
    "datasource": SOURCE,
    "expr": NAME,
    "legendFormat": NAME,
    "exemplar": FLAG,
})  # fmt: skip
FIELDS = closed({
    "defaults": closed({"unit": {"enum": UNITS}}, {"min": {"type": "number"}}),
    "overrides": several({}, maxItems=0),
})  # fmt: skip
PANEL = closed({
    "id": NUMBER,
    "type": {"enum": ["timeseries", "stat"]},
    "title": NAME,
    "description": TEXT,
    "gridPos": PLACE,
    "datasource": SOURCE,
    "fieldConfig": FIELDS,
    "options": {"type": "object", "maxProperties": 0},
    "targets": several(TARGET, minItems=1, maxItems=26),
})  # fmt: skip
ROW = closed({
    "id": NUMBER,
    "type": {"const": "row"},
    "title": NAME,
    "collapsed": {"const": False},
    "panels": several({}, maxItems=0),
    "gridPos": PLACE,
})  # fmt: skip

SOURCE_CHOICE = closed({
    "name": {"const": "datasource"},
    "type": {"const": "datasource"},
    "query": {"const": "prometheus"},
})  # fmt: skip
LABEL_CHOICE = closed({
    "name": {"type": "string", "pattern": "^[a-z_]+$"},
    "type": {"const": "query"},
    "datasource": SOURCE,
    "refresh": {"enum": [0, 1, 2]},
    "multi": FLAG,
    "includeAll": FLAG,
    "allValue": TEXT,
    "current": closed({"text": NAME, "value": NAME}),
    "query": closed({
        "query": {"type": "string", "pattern": r"^label_values\([a-z_:]+, [a-z_]+\)$"},
        "refId": NAME,
    }),
})  # fmt: skip

DASHBOARD: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **closed({
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{8,40}$"},
        "title": NAME,
        "tags": several(NAME, uniqueItems=True),
        "schemaVersion": {"const": 39},
        "version": NUMBER,
        "editable": FLAG,
        "refresh": {"type": "string", "pattern": "^[0-9]+[smhd]$"},
        "time": closed({"from": TIME, "to": TIME}),
        "timezone": {"enum": ["", "browser", "utc"]},
        "annotations": closed({"list": several({}, maxItems=0)}),
        "links": several({}, maxItems=0),
        "templating": closed({
            "list": {
                "type": "array",
                "prefixItems": [SOURCE_CHOICE],
                "items": LABEL_CHOICE,
                "minItems": 1,
            },
        }),
        "panels": several({"oneOf": [PANEL, ROW]}, minItems=1),
    }),
}  # fmt: skip

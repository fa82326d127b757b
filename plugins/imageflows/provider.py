"""What Airflow is told of our connection types: their hooks, and their forms in the UI.

Airflow finds it through `plugins/imageflows.dist-info/entry_points.txt`: Python looks for entry
points in every folder of the path, so nothing has to be installed. Airflow 3.3 puts the plugins
folder on the path too late for the forms, so PYTHONPATH has to name it for them; connections and
the test of a connection do without. Sources of the format: `provider.yaml.schema.json` in the
package airflow, and "Managing Connections" in its documentation.
"""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """As `airflow/provider_info.schema.json` has it."""
    return {
        "package-name": "imageflows",
        "name": "Imageflows",
        "description": "Connections of Imageflows.",
        "connection-types": [
            {
                "connection-type": "riak",
                "hook-class-name": "imageflows.hooks.riak_hook.RiakHook",
                "hook-name": "Riak KV",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"host": "Nodes", "login": "User"},
                    "placeholders": {
                        "host": "riak1,riak2:8098",
                        "port": "8098",
                        "extra": '{"tries": 4}',
                    },
                },
                "conn-fields": _RIAK_FIELDS,
            }
        ],
    }


def _field(label: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": [kind, "null"], **schema},
    }


_REPLICAS = "A number, or one, quorum, all, default; empty: as the bucket has it"
_RIAK_FIELDS = {
    "tls": _field("TLS", "boolean", "Speak HTTPS"),
    "ca_file": _field("CA file", "string", "On the workers; empty: the system's authorities"),
    "r": _field("r", "string", f"Replicas that must answer a read. {_REPLICAS}"),
    "pr": _field("pr", "string", f"… of which own the key. {_REPLICAS}"),
    "w": _field("w", "string", f"Replicas that must take a write. {_REPLICAS}"),
    "pw": _field("pw", "string", f"… of which own the key. {_REPLICAS}"),
    "dw": _field("dw", "string", f"… of which have it on disk. {_REPLICAS}"),
    "server_timeout_ms": _field("Riak's timeout", "integer", "Milliseconds Riak itself waits"),
    "connect_timeout": _field("Connect timeout", "number", "Seconds for a connection; 5"),
    "read_timeout": _field("Read timeout", "number", "Seconds without a byte; 30"),
    "request_timeout": _field("Request timeout", "number", "Seconds for a whole answer; 60"),
    "tries": _field("Tries", "integer", "Requests at most for one call; 4"),
    "pool_size": _field("Pool size", "integer", "Connections to each node; 16"),
}

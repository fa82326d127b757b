"""Write .env for docker-compose.yaml: .env.example with its secrets filled in (`make env`)."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fernet_key() -> str:
    """32 random bytes as Fernet takes them: URL-safe base64, padded."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRETS: dict[str, Callable[[], str]] = {
    "AIRFLOW_FERNET_KEY": fernet_key,
    # Hexadecimal: nothing in it means anything to a shell, an address or a command line.
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(64),
    "AIRFLOW_API_SECRET_KEY": lambda: secrets.token_hex(32),
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_hex(12),
    "AIRFLOW_RETRY_PASSWORD": lambda: secrets.token_hex(24),
    "POSTGRES_PASSWORD": lambda: secrets.token_hex(32),
    "REDIS_PASSWORD": lambda: secrets.token_hex(32),
    "S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "S3_SECRET_KEY": lambda: secrets.token_hex(32),
}


def filled(example: str) -> str:
    """The text of .env.example with a new secret in each place that is meant for one.

    Raises:
        ValueError: a secret has no empty place.
    """
    lines, places = [], set()
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        if equals and not value and name in SECRETS:
            places.add(name)
            line += SECRETS[name]()
        lines.append(line)
    if missing := sorted(SECRETS.keys() - places):
        raise ValueError(f"no empty place for {', '.join(missing)}")
    return "\n".join(lines) + "\n"


def main(folder: Path = ROOT) -> int:
    """Write `folder`/.env and say what is what; 1 when there is one already."""
    target = folder / ".env"
    text = filled((folder / ".env.example").read_text())
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(
            f"{target} is there already and was left alone: the database, its connections and the "
            "buckets open with its secrets only. Move it away to have a new one.",
            file=sys.stderr,
        )
        return 1
    with open(file, "w") as out:
        out.write(text)
    print(
        f"{target} holds new secrets and may be read by you alone. AIRFLOW_ADMIN_PASSWORD is for "
        "`admin` in the UI. The settings below the secrets are yours to change.\n"
        "Next: docker compose up --build --detach"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

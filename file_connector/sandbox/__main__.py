"""``python -m file_connector.sandbox``: serve the living world alone, for other programs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

from file_connector.sandbox.living import ACC_PROJECT, DRIVE_FOLDER, addresses_of, serve


def main(arguments: list[str] | None = None, stop: threading.Event | None = None) -> int:
    """Serve until interrupted (or ``stop`` is set)."""
    parser = argparse.ArgumentParser(prog="python -m file_connector.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--seed", type=int, default=42, help="another seed, another history")
    parser.add_argument(
        "--credentials", type=Path, metavar="DIR", help="write google.json and aps.json there"
    )
    options = parser.parse_args(arguments)
    sandbox = serve(options.seed, datetime.now(timezone.utc).replace(microsecond=0), options.port)
    for name, value in sandbox.environ.items():
        sys.stdout.write(f"{name}={value}\n")
    sys.stdout.write(f"Drive folder_id {DRIVE_FOLDER}, ACC project_id {ACC_PROJECT}\n")
    if options.credentials:
        addresses = addresses_of(sandbox)
        options.credentials.mkdir(parents=True, exist_ok=True)
        for file, secret in (
            ("google.json", addresses.google_credentials),
            ("aps.json", addresses.aps_credentials),
        ):
            path = options.credentials / file
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                json.dump(secret, out, indent=2)
            sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
    try:
        (stop or threading.Event()).wait()
    except KeyboardInterrupt:
        pass
    finally:
        sandbox.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

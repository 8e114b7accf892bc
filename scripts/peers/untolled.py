"""Our gateway without limits and metering, for what these cost: `bench_gateway --features`.

No setting turns them off: a gateway that serves unmetered is no product. Keys and the line stay.
"""

import sys

from serving import logs
from serving.gateway.app import create_app
from serving.gateway.server import run
from serving.settings import GatewaySettings


def main() -> int:
    """Runs the gateway from its `PENSTOCK_*` settings."""
    logs.configure("gateway")
    settings = GatewaySettings.load()
    run(create_app(settings, is_tolled=False), settings, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Asks Ray to take this node out of service: `python -m serving.cli.ray_drain ADDRESS SECONDS`.

Serve then stops the node's replicas in good order, so that each host drains its engine: gateways
send it nothing new, and what runs may end. ADDRESS is the node's own, SECONDS is how long Ray waits
before it counts the node as lost. The head is the one of RAY_ADDRESS.
"""

import os
import sys
import time

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2, gcs_pb2

TIMEOUT_S = 10.0


def main() -> int:
    """Returns 0 if Ray has accepted it."""
    address, deadline_s = sys.argv[1], float(sys.argv[2])
    client = GcsClient(address=os.environ["RAY_ADDRESS"])
    nodes = client.get_all_node_info(timeout=TIMEOUT_S)
    ours = [
        node_id
        for node_id, node in nodes.items()
        if node.node_manager_address == address and node.state == gcs_pb2.GcsNodeInfo.ALIVE
    ]
    if not ours:
        sys.stderr.write(f"Ray knows no living node at {address}\n")
        return 1
    accepted, reason = client.drain_node(
        ours[0].hex(),
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "the node is asked to end",
        int((time.time() + deadline_s) * 1000),
    )
    if not accepted:
        sys.stderr.write(f"Ray does not drain the node: {reason}\n")
    return 0 if accepted else 1


if __name__ == "__main__":
    sys.exit(main())

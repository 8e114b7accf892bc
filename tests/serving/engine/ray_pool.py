"""One pool in a private Ray of this process: `python -m tests.serving.engine.ray_pool`.

Prints `up`, and takes the pool down when its standard input ends. A process of its own, since Ray's
workers shall start in a clean environment and its warnings are not ours.
"""

import os
import sys

import ray
from ray import serve

from serving.engine.host import PoolArgs, build_pool

if __name__ == "__main__":
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 << 20,
        _temp_dir=os.environ.get("RAY_TMPDIR"),
    )
    serve.start(proxy_location="Disabled")
    application = build_pool(PoolArgs(pool="cpu"))
    serve.run(application, name="penstock-cpu", route_prefix=None)
    print("up", flush=True)
    sys.stdin.read()
    serve.delete("penstock-cpu")
    print("down", flush=True)
    serve.shutdown()
    ray.shutdown()

"""Which hosts fetch which weights beforehand: each those of all models that it may have to start.

A model that was deployed is on the nodes of its pool before anybody asks for it, as far as their
caches have room; hosts of one node share its cache, and one of them does the work.
"""

import hashlib

from serving.controller.fleet import Fleet
from serving.controller.registry import Registry


def spread(fleet: Fleet, registry: Registry) -> None:
    """Tells every host what to fetch; those that know it already hear nothing."""
    fetched = [model for model in registry.models() if model.manifest.is_fetched]
    for pool in {host.pool for host in fleet}:
        wanted = [model for model in fetched if model.manifest.resources.pool == pool]
        named = "\n".join(f"{model.name} {model.revision}" for model in wanted)
        prefetch_id = hashlib.sha256(named.encode()).hexdigest()[:16] if wanted else ""
        for host in fleet:
            if host.pool == pool and host.prefetch_id != prefetch_id:
                host.prefetch = tuple(model.manifest for model in wanted)
                host.prefetch_id = prefetch_id
                host.changes.bump()

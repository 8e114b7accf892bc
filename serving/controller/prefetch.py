"""Which hosts fetch which weights beforehand: each those of all models that it may have to start.

A model that was deployed is on the nodes of its pool before anybody asks for it, as far as their
caches have room; hosts of one node share its cache, and one of them does the work.
"""

from serving.controller.observed import Fleet
from serving.controller.registry import Registry


def spread(fleet: Fleet, registry: Registry) -> None:
    """Tells every host what to fetch; those that know it already hear nothing."""
    models = registry.models()
    for pool in {host.pool for host in fleet}:
        wanted = tuple(
            model.manifest
            for model in models
            if model.manifest.resources.pool == pool and model.manifest.is_fetched
        )
        for host in fleet:
            if host.pool == pool and host.prefetch != wanted:
                host.prefetch = wanted
                host.changes.bump()

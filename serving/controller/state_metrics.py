"""Metrics of how things stand at the controller, read when they are scraped."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry

from autoscaler.snapshot import Decision
from serving import metrics
from serving.controller.fleet import Fleet
from serving.controller.placement import Life
from serving.identities import KeyRecord
from serving.protocol import ModelState


class StateMetrics:
    """States of models, the autoscaler's last word on each, accelerators, the ends of keys."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._states = metrics.MODEL_STATE.gauge(registry)
        self._decisions = metrics.DECISION.gauge(registry)
        self._unschedulable = metrics.UNSCHEDULABLE.gauge(registry)
        self._accelerators = metrics.ACCELERATORS.gauge(registry)
        self._key_expiry = metrics.KEY_EXPIRY.gauge(registry)
        self._gpu_use = metrics.GPU_UTILISATION.gauge(registry)
        self._gpu_used = metrics.GPU_MEMORY_USED.gauge(registry)
        self._gpu_total = metrics.GPU_MEMORY.gauge(registry)
        self._gpu_power = metrics.GPU_POWER.gauge(registry)

    def read_models(
        self,
        fleet: Fleet,
        states: Mapping[str, ModelState],
        decisions: Mapping[str, Decision],
    ) -> None:
        """Takes over how the deployed models stand."""
        for gauge in (self._states, self._decisions, self._unschedulable):
            gauge.clear()
        for model, state in states.items():
            self._states.labels(model, state).set(1)
        for model, decision in decisions.items():
            self._decisions.labels(model, decision.reason).set(1)
            have = sum(engine.life is not Life.DEAD for engine in fleet.bound(model))
            self._unschedulable.labels(model).set(max(0, decision.target - have))

    def read_hosts(self, fleet: Fleet, pools: Iterable[str]) -> None:
        """Takes over which accelerators work."""
        self._accelerators.clear()
        for pool in pools:
            bound = free = 0
            for host in (host for host in fleet if host.pool == pool):
                number = max(1, len(host.registration.accelerators))
                # A sleeper holds its accelerators, though it gives way.
                idle = host.is_free and host.dozing is None
                bound, free = (bound, free + number) if idle else (bound + number, free)
            self._accelerators.labels(pool, "bound").set(bound)
            self._accelerators.labels(pool, "free").set(free)

    def read_gpus(self, fleet: Fleet) -> None:
        """Takes over what the drivers of the hosts that live have told last."""
        for gauge in (self._gpu_use, self._gpu_used, self._gpu_total, self._gpu_power):
            gauge.clear()
        for host in fleet:
            for gpu in host.gpus:
                labels = (host.pool, host.host_id, gpu.gpu)
                self._gpu_used.labels(*labels).set(gpu.memory_used_bytes)
                self._gpu_total.labels(*labels).set(gpu.memory_total_bytes)
                if gpu.utilisation is not None:
                    self._gpu_use.labels(*labels).set(gpu.utilisation)
                if gpu.power_w is not None:
                    self._gpu_power.labels(*labels).set(gpu.power_w)

    def read_keys(self, keys: Iterable[KeyRecord]) -> None:
        """Takes over when the next key of each role ends; keys without an end are left out."""
        self._key_expiry.clear()
        now, ends = time.time(), dict[str, float]()
        for key in keys:
            if key.expires_at is not None and key.expires_at > now:
                ends[key.role] = min(key.expires_at, ends.get(key.role, key.expires_at))
        for role, at in ends.items():
            self._key_expiry.labels(role).set(at)

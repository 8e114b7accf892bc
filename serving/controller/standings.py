"""How all models stand: `standing` judges each by what fleet, targets and bindings know of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from serving.controller.bindings import Bindings
from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.controller.standing import Seen, Standing, assess
from serving.controller.targets import Targets
from serving.protocol import ModelState

ASLEEP = Standing(ModelState.ASLEEP)
SERVED_ELSEWHERE = Standing(ModelState.READY)


class Standings:
    """What was found of each model when they were last looked at."""

    def __init__(self, fleet: Fleet, targets: Targets, bindings: Bindings) -> None:
        self._fleet = fleet
        self._targets = targets
        self._bindings = bindings
        self._found: dict[str, Standing] = {}

    def of(self, model: str) -> Standing:
        """One model's; one that nobody looked at yet is asleep."""
        return self._found.get(model, ASLEEP)

    def look(
        self,
        models: Iterable[DeployedModel],
        bound: Mapping[str, Sequence[Engine]],
        waiting: frozenset[str],
        now_s: float,
    ) -> None:
        """Looks at all models.

        Args:
            models: Those that are deployed; any other is forgotten.
            bound: Their engines.
            waiting: Those that wait for a host.
            now_s: Monotonic seconds.
        """
        pool_hosts = Counter(host.pool for host in self._fleet)
        dozing = self._fleet.dozing()
        self._found = {}
        for model in models:
            engines = bound.get(model.name, [])
            ready = [engine for engine in engines if engine.life is Life.READY]
            pool = model.manifest.resources.pool
            standing = assess(
                Seen(
                    target=self._targets.of(model.name),
                    ready=len(ready),
                    outdated=sum(not model.has_engine_of(e.revision) for e in ready),
                    starting=sum(e.life is Life.STARTING for e in engines),
                    waits_for_host=model.name in waiting,
                    starts=self._bindings.starts(model.name),
                    pool=pool,
                    pool_hosts=pool_hosts[pool],
                    swaps=self._bindings.swaps(model.name),
                    hosts_needed=model.manifest.resources.hosts,
                    dozing_on=dozing.get(model.name, ""),
                ),
                now_s,
            )
            elsewhere = model.manifest.endpoints
            self._found[model.name] = SERVED_ELSEWHERE if elsewhere else standing

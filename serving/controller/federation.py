"""The engines' own metrics under the controller's `/metrics`, with Penstock's labels.

An engine's port answers only with its token, so Prometheus cannot ask it. Each sample gets the
labels `model`, `revision` and `replica` (the engine's id). Only families of FAMILIES pass, and
histograms of at most HISTOGRAM_ENGINES_MAX engines, so that no metric has more than 2,000 series.
"""

import asyncio
import re
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry

from serving import metrics
from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.protocol import EnginePhase

TIMEOUT_S = 2.0
AT_ONCE = 32
ENGINES_MAX = 1000
HISTOGRAM_ENGINES_MAX = 80

HISTOGRAMS = frozenset({
    "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
    "vllm:request_queue_time_seconds",
})  # fmt: skip
FAMILIES = HISTOGRAMS | {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:num_preemptions_total",
}  # fmt: skip
SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \S+)?$")
OUR_LABELS = re.compile(r'(?:^|,)(?:model_name|engine|model|revision|replica)="(?:[^"\\]|\\.)*"')
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which engine a text is from."""

    model: str
    revision: int
    replica: str

    @property
    def labels(self) -> str:
        """In Prometheus' text format; all three are made of plain characters."""
        return f'model="{self.model}",revision="{self.revision}",replica="{self.replica}"'


def relabel(text: str, origin: Origin, families: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The samples of one engine's text that pass, each after its family's name. Pure."""
    for line in text.splitlines():
        if not line.startswith("vllm:") or (found := SAMPLE.match(line)) is None:
            continue
        name, labels, value = found.groups()
        family = family_of(name)
        if family not in families:
            continue
        own = OUR_LABELS.sub("", labels or "").strip(",")
        joined = ",".join(part for part in (origin.labels, own) if part)
        yield family, f"{name}{{{joined}}} {value}"


def family_of(name: str) -> str:
    """A histogram's name without its samples' endings; any other name as it is."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in HISTOGRAMS else name


def merge(texts: Iterable[tuple[Origin, str]]) -> bytes:
    """One text of many engines', each family once, as the format asks."""
    samples: dict[str, list[str]] = {}
    for number, (origin, text) in enumerate(texts):
        families = FAMILIES if number < HISTOGRAM_ENGINES_MAX else FAMILIES - HISTOGRAMS
        for family, line in relabel(text, origin, frozenset(families)):
            samples.setdefault(family, []).append(line)
    lines: list[str] = []
    for family, found in sorted(samples.items()):
        lines += [f"# TYPE {family} {kind_of(family)}", *found]
    return "".join(f"{line}\n" for line in lines).encode()


def kind_of(family: str) -> str:
    """Prometheus' type of a family."""
    if family in HISTOGRAMS:
        return "histogram"
    return "counter" if family.endswith("_total") else "gauge"


class Federation:
    """Asks all ready engines for their metrics when it is asked itself."""

    def __init__(
        self, registry: CollectorRegistry, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._scrapes = metrics.ENGINE_SCRAPES.counter(registry)
        for outcome in ("ok", "failed"):
            self._scrapes.labels(outcome)
        self._transport = transport

    async def collect(self, fleet: Fleet) -> bytes:
        """The metrics of the engines that answer in time; those that do not are counted."""
        ready = [e for e in fleet.engines() if e.phase is EnginePhase.READY][:ENGINES_MAX]
        if not ready:
            return b""
        turn = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(
            transport=self._transport, timeout=TIMEOUT_S, verify=NO_TLS, trust_env=False
        ) as client:
            texts = await asyncio.gather(*(self._ask(client, turn, e) for e in ready))
        return merge(text for text in texts if text is not None)

    async def _ask(
        self, client: httpx.AsyncClient, turn: asyncio.Semaphore, engine: Engine
    ) -> tuple[Origin, str] | None:
        report = engine.report
        if report is None or report.url is None or report.token is None:
            return None
        try:
            async with turn:
                answer = await client.get(
                    f"{report.url}/metrics", headers={"authorization": f"Bearer {report.token}"}
                )
            answer.raise_for_status()
        except httpx.HTTPError:
            self._scrapes.labels("failed").inc()
            return None
        self._scrapes.labels("ok").inc()
        return Origin(engine.model, engine.revision, engine.engine_id), answer.text

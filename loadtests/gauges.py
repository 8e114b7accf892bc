"""Watches a page of metrics during a run: how many engines there were, and who waited for them.

The page is Prometheus' text, of the platform's controller or of any other server; it is read once a
second, in a thread of its own, so that reading it does not delay what is measured.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

DEFAULT = ("penstock_engines", "penstock_queue_depth", "vllm:num_requests_running")
INTERVAL_S = 1.0
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A gauge over time."""

    name: str
    """With its labels, as `penstock_engines{phase="ready"}`; the model's is left out."""
    points: tuple[tuple[float, float], ...]
    """Monotonic seconds and value, in order."""


class Watch:
    """Reads gauges for as long as the `with` block runs.

    Args:
        urls: Pages of metrics. One that cannot be read is named in `complaint`, and no more.
        names: The metrics to keep.
        model: Samples that bear another model's label are left out.
    """

    def __init__(self, urls: Sequence[str], names: Sequence[str], model: str) -> None:
        self._urls = tuple(urls)
        self._names = frozenset(names)
        self._model = model
        self._points: dict[str, list[tuple[float, float]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.complaint: str | None = None

    def __enter__(self) -> "Watch":
        if self._urls:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._urls:
            self._thread.join()

    def watched(self) -> tuple[Watched, ...]:
        """What was seen so far, by name; a gauge that was gone for a while was 0 then."""
        return tuple(Watched(name, tuple(self._points[name])) for name in sorted(self._points))

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S) as http:
            while True:
                self._look(http)
                if self._over.wait(INTERVAL_S):
                    self._look(http)
                    return

    def _look(self, http: httpx.Client) -> None:
        seen: dict[str, float] = {}
        for url in self._urls:
            try:
                page = http.get(url)
                page.raise_for_status()
                found = gauges(page.text, self._names, self._model)
            except (httpx.HTTPError, ValueError) as error:
                self.complaint = f"{url} cannot be watched: {error or type(error).__name__}"
                return
            for name, value in found:
                seen[name] = seen.get(name, 0.0) + value
        now_s = time.monotonic()
        for name in self._points.keys() | seen.keys():
            self._points.setdefault(name, []).append((now_s, seen.get(name, 0.0)))


def gauges(page: str, names: frozenset[str], model: str) -> Iterable[tuple[str, float]]:
    """The samples of a page that are asked for, as name with labels and value.

    Raises:
        ValueError: The page is no text of Prometheus.
    """
    for family in text_string_to_metric_families(page):
        if family.name not in names:
            continue
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("model", model) != model or labels.pop("model_name", model) != model:
                continue
            shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            yield f"{family.name}{{{shown}}}" if shown else family.name, float(sample.value)

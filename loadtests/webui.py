"""Our figures in Locust's own web UI: a tab with the times of each kind, and a page of charts."""

import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request
from locust.env import Environment

from loadtests.html_report import to_html
from loadtests.measure import Outcome
from loadtests.report import Report
from loadtests.runner import Run
from loadtests.summary import Spread, summarize

KEY = "times"
PATH = "/times"
REFRESH_S = 5
COLUMNS = {
    "name": "Kind", "completed": "# Completed", "failed": "# Failed", "ttft50": "TTFT p50 (ms)",
    "ttft99": "TTFT p99 (ms)", "tpot50": "TPOT p50 (ms)", "tpot99": "TPOT p99 (ms)",
    "tokens": "Output tokens", "lag99": "Send lag p99 (ms)",
}  # fmt: skip

MakeReport = Callable[[], Report]
"""The report of what has been measured by now."""


def install(environment: Environment, report: MakeReport) -> None:
    """Adds the tab and the page to the UI of a Locust process that has one."""
    web = environment.web_ui
    if web is None:
        return
    web.template_args |= {
        "extended_tabs": [{"title": "TTFT and TPOT", "key": KEY}],
        "extended_tables": [
            {
                "key": KEY,
                "structure": [{"key": name, "title": title} for name, title in COLUMNS.items()],
            }
        ],
        "extended_csv_files": [{"href": PATH, "title": "Charts of TTFT, TPOT and throughput"}],
    }
    pages = Blueprint("penstock", __name__)

    @pages.route(PATH)
    def charts() -> Response:
        return Response(to_html(report(), refresh_s=REFRESH_S), mimetype="text/html")

    @web.app.after_request
    def add_times(response: Response) -> Response:
        body: dict[str, Any] | None
        if request.path == "/stats/requests" and (body := response.get_json(silent=True)):
            table = {"key": KEY, "data": rows(list(report().run.outcomes))}
            body["extended_stats"] = [*body.get("extended_stats", ()), table]
            response.set_data(web.app.json.dumps(body))
        return response

    web.app.register_blueprint(pages)


def run_of(outcomes: list[Outcome]) -> Run:
    """The run that the outcomes were measured in, as far as it has got."""
    now_s = time.monotonic()
    begun_s = min((one.sent_s for one in outcomes), default=now_s)
    ended_s = max((one.sent_s + (one.e2e_s or 0.0) for one in outcomes), default=now_s)
    return Run(begun_s, max(ended_s, begun_s + 1e-3), tuple(outcomes))


def rows(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """The table of the tab: a row for each kind of request."""

    def ms(spread: Spread | None, mark: float) -> float | str:
        return "" if spread is None else round(spread.percentiles_s[mark] * 1000, 1)

    found: list[dict[str, object]] = []
    for kind in sorted({one.kind for one in outcomes}):
        of_kind = [one for one in outcomes if one.kind == kind]
        part = summarize(of_kind, 1.0)
        found.append(
            {
                "name": kind, "completed": part.completed, "failed": part.failed,
                "ttft50": ms(part.ttft, 50.0), "ttft99": ms(part.ttft, 99.0),
                "tpot50": ms(part.tpot, 50.0), "tpot99": ms(part.tpot, 99.0),
                "tokens": part.output_tokens, "lag99": ms(part.lag, 99.0),
            }
        )  # fmt: skip
    return found

"""The pages as bytes, and as a real browser shows them."""

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loadtests.compare import compare
from loadtests.gauges import Watched
from loadtests.html_report import capacity_to_html, comparison_to_html, to_html
from loadtests.measure import Failure, Outcome
from loadtests.profile import Profile, read
from loadtests.report import Report
from loadtests.runner import Run
from loadtests.search import Capacity, Probe, parse_objectives
from loadtests.summary import summarize

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Tells what the browser made of the page, in an attribute that --dump-dom shows.
PROBE = """<script>
const drawn = [...document.querySelectorAll("svg.chart")].map(chart => {
  const marks = [...chart.querySelectorAll("rect,path,circle")].filter(mark => {
    const box = mark.getBBox();
    return box.width > 0 && box.height >= 0;
  });
  const text = [...chart.querySelectorAll("text")].every(
    label => parseFloat(getComputedStyle(label).fontSize) > 0);
  return chart.getBoundingClientRect().height > 100 && text ? marks.length : 0;
});
const fits = document.documentElement.scrollWidth <= window.innerWidth;
document.body.dataset.drawn = JSON.stringify(drawn);
document.body.dataset.fits = fits;
</script></body>"""


def outcomes(slower: float = 1.0, seed: int = 0) -> list[Outcome]:
    """A hundred requests in ten seconds, one of which failed with a nasty word."""
    rng = random.Random(seed)
    made = []
    for number in range(100):
        at_s = 50 + number / 10
        ttft_s = rng.gammavariate(4, 0.01) * slower
        each = Outcome("quiet" if number % 3 else "noisy", at_s, at_s, ttft_s=ttft_s)
        each.gaps_s.extend(rng.gammavariate(9, 0.002) * slower for _ in range(9))
        each.e2e_s = ttft_s + sum(each.gaps_s)
        each.prompt_tokens, each.output_tokens, each.chunks = 20, 10, 10
        made.append(each)
    made[7].failure, made[7].detail = Failure.MALFORMED, '<script>alert("x")</script>'
    return made


def run_page() -> bytes:
    profile = read({"slo": {"ttft_s": 0.05}})
    run = Run(50.0, 60.5, tuple(outcomes()))
    engines = Watched('penstock_engines{phase="ready"}', ((50.1, 0.0), (55.0, 2.0), (60.4, 1.0)))
    return to_html(Report("http://x", "m <b>", profile, run, started_at=0.0, watched=(engines,)))


def comparison_page() -> bytes:
    pairs = [
        (summarize(outcomes(1.2, n), 10.0), summarize(outcomes(1.0, n + 50), 10.0))
        for n in range(10)
    ]
    return comparison_to_html("http://a", "http://b", Profile(), compare(pairs))


def capacity_page() -> bytes:
    probes = tuple(
        Probe(rate, (score, score), (rate / 10, rate / 200))
        for rate, score in ((4.0, 0.1), (8.0, 0.5), (12.0, 0.9), (16.0, 3.0), (64.0, 90.0))
    )
    slo = parse_objectives("ttft_p99=2,tpot_p99=0.1")
    return capacity_to_html("http://x", Profile(), slo, Capacity(12.4, 12.0, probes))


PAGES = {"run": run_page, "comparison": comparison_page, "capacity": capacity_page}


@pytest.mark.parametrize("name", PAGES)
def test_page_fetches_nothing_and_runs_nothing(name: str) -> None:
    page = PAGES[name]().decode()
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=(?!\"data:)|url\(|@import", page)
    assert len(page) < 100_000


def test_run_page_tells_figures_errors_and_kinds_with_words_of_the_server_escaped() -> None:
    page = run_page().decode()
    assert "Load test of m &lt;b&gt;" in page
    assert "&lt;script&gt;alert" in page
    for said in (
        "malformed",
        "SLO kept by",
        "noisy",
        "TTFT",
        "send lag",
        "TPOT",
        "In flight",
        "Engines",
    ):
        assert said in page


def test_run_in_which_nothing_completed_has_a_page() -> None:
    nothing = Report("http://x", "m", Profile(), Run(0.0, 1.0, ()), started_at=0.0)
    assert "no request completed" in to_html(nothing).decode()
    failed = Outcome("chat", 0.1, 0.1, failure=Failure.CONNECT)
    refused = Report("http://x", "m", Profile(), Run(0.0, 1.0, (failed,)), started_at=0.0)
    page = to_html(refused).decode()
    assert "connect" in page
    assert "nan" not in page


def test_comparison_page_says_which_is_better() -> None:
    page = comparison_page().decode()
    assert "A is worse: " in page
    assert "TTFT p50" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
@pytest.mark.parametrize(
    ("name", "charts", "width"),
    [("run", 5, 1200), ("run", 5, 500), ("comparison", 1, 1200), ("capacity", 2, 1200)],
)
def test_browser_draws_all_charts_without_an_error(
    name: str, charts: int, width: int, tmp_path: Path
) -> None:
    # The page forbids scripts; the probe's is let in.
    page = PAGES[name]().decode().replace("default-src 'none'", "script-src 'unsafe-inline'")
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", PROBE))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'chromium'}",
        f"--window-size={width},900", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r'data-drawn="\[([\d,]*)\]" data-fits="(\w+)"', done.stdout)
    assert found, done.stderr[-2000:]
    drawn = [int(marks) for marks in found[1].split(",")]
    assert len(drawn) == charts
    assert min(drawn) > 0
    assert found[2] == "true"
    assert "CONSOLE" not in done.stderr

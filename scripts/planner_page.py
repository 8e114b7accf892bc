"""The page of the sizing planner, made from its tables: hardware, calibration, the catalog."""

from collections.abc import Iterator
from itertools import combinations

from models import roofline
from models.calibration import FITTED, POINTS, Efficiency, calibrated, error_factor, fit
from models.catalog import Entry, Variant, entries
from models.errors import PenstockError
from models.hardware import HARDWARE, PRICE_SHARE, STORAGE, hardware_named
from models.plan import Plan
from models.sizing import GPU_START_S, UNMEASURED_FACTOR, Ask, plan

CONTEXT = 8192
CONCURRENCY = 64

Rows = Iterator[tuple[str, ...]]


def planner_page(made: str) -> str:
    """The whole page; `made` is the line that says so."""
    lines = ["# The sizing planner", made, *INTRODUCTION.strip().splitlines()]
    lines += ["", "## Calibration", "", *_calibration_text().strip().splitlines(), ""]
    lines += _table(
        ("point", "published, tok/s a GPU", "predicted", "error", "used to fit", "source"),
        _points(),
    )
    lines += ["", *PAIRS.strip().splitlines(), ""]
    lines += _table(
        ("fitted on", "prefill", "decode", *(f"error on {i + 1}" for i in range(len(POINTS)))),
        _pairs(),
    )
    lines += ["", "## The catalog, planned", "", *CATALOG.strip().splitlines(), ""]
    lines += _table(
        (
            "model", "pool", "weights", "size, GiB", "cache of 8k, GiB", "at once, 8k",
            "at once, longest", "tok/s an engine", "low to high", "$ a million, on-demand",
            "low to high", "start from NVMe, s",
        ),
        _catalog(),
    )  # fmt: skip
    lines += ["", "## Parameters, counted", "", COUNTED.strip(), ""]
    lines += _table(("model", "counted", "published", "active, counted", "source"), _parameters())
    lines += ["", "## Hardware", "", HARDWARE_TEXT.strip(), ""]
    lines += _table(
        ("name", "memory, GiB", "TB/s", "TFLOP/s 16 / 8 / 4 bits", "link, GB/s", "$ an hour",
         "source"),
        _hardware(),
    )  # fmt: skip
    lines += ["", "Storage, for the start:", ""]
    lines += _table(
        ("storage", "GB/s a host", "source"), ((s.name, str(s.gb_s), s.source) for s in STORAGE)
    )
    return "\n".join(lines) + "\n"


INTRODUCTION = f"""
`penstock plan MODEL --hardware H200 --context 8192 --concurrency 64` sizes a model before it
runs. MODEL is a name of `penstock catalog`, a config.json or its folder, or `hf://org/name`, of
which only config.json is fetched. `--output json` gives every number.

How it counts:

- **Weights**: the values that config.json implies, times the bytes of their format (int4 4.16
  bits, mxfp4 4.25, nvfp4 4.5, scales included). Embedding, output head, norms and vision towers
  stay at 16 bits; with mxfp4, as in gpt-oss, all but the experts do.
- **Cache**: 2 x key/value heads x head size a token and layer; a sliding window bounds its layers
  (Gemma 3, gpt-oss); latent attention keeps one vector (DeepSeek-V2, section 2.1), on every
  tensor-parallel rank; linear attention keeps a state of constant size.
- **Reserve**: activations of the largest step, logits, and {roofline.CONTEXT_GIB:.0f} GiB for
  context and libraries, {roofline.GRAPHS_GIB:.0f} for graphs, {roofline.PEERS_GIB:.0f} for peers
  (assumed; vLLM measures them). An engine takes {roofline.GPU_SHARE:.0%} of a GPU's memory.
- **Decode**: a step takes the longer of its bytes over the bandwidth and its operations over the
  peak (the roofline: Williams, Waterman and Patterson, 2009), plus two all-reduces a layer
  (Pope et al., 2022) and {1000 * roofline.GPU_STEP_S:.0f} ms for scheduling and launching (assumed;
  {1000 * roofline.CPU_STEP_S:.0f} on a CPU). A batch of b tokens reads the share
  1 - (1 - k/n)^b of n experts.
- **Prefill**: 2 x active parameters a token, and attention over half of the prompt.
- **Throughput**: prompts and answers share the steps, so that their times add up.
- **Start**: reading the weights at the storage's rate, and {GPU_START_S:.0f} s for the rest on a
  GPU (assumed). A launcher that has imported everything is part of that.

What it does not count: speculative decoding, prefix-cache hits, expert parallelism, adapters,
images. Block sizes of a quantization may forbid a split that heads allow.
"""

PAIRS = """
What other pairs of points would have given; a dash: the two contradict each other, no pair of
efficiencies explains both. Errors are those of the prediction, in the order of the points above.
"""

CATALOG = f"""
Each variant of the catalog with its own parallel sizes, for sequences of {CONTEXT} tokens, three
quarters of them prompt, {CONCURRENCY} at once or as many as fit. "At once, longest" is for the
variant's `max_model_len`. At most 1024 at once are planned with. Prices are for answer tokens,
prompts included, while that load lasts.
"""

COUNTED = "What the planner counts from config.json, in 10^9, beside what the authors say."

HARDWARE_TEXT = (
    "Peaks are of dense arithmetic. Prices are on-demand list prices and change: give yours with "
    "`--gpu-hour-usd`. "
    + ", ".join(f"{name} is {share:.0%} of it" for name, share in PRICE_SHARE.items())
    + " (assumed)."
)


def _calibration_text() -> str:
    reached = calibrated()
    first, second = (str(index + 1) for index in FITTED)
    return f"""
Two constants are fitted, on points {first} and {second}: **{reached.prefill:.3f}** of the
roofline is reached in prefill, **{reached.decode:.3f}** in decode. Point {first} is vLLM itself,
point {second} has another share of prefill and a tensor-parallel engine. The other points had no
say; their error stands as it is. The worst error, a factor of **{error_factor():.2f}**, is the
error bar of every prediction on a GPU, also of those that no point was measured on (A100, L40S,
B200) and of mixtures of experts, which no point covers; on a CPU it is
{UNMEASURED_FACTOR:g}, and a guess. Two points outside the fit are few: read the bar as the least
that a prediction may be off. The mean answer of point 3 (294.45 tokens) is in MLPerf's
rules. The other mean lengths of its data sets, the batch (as many as memory holds, 1024 at most)
and the split into engines are our assumptions: the published results do not say them.
"""


def _points() -> Rows:
    reached = calibrated()
    for index, point in enumerate(POINTS):
        predicted = point.predicted(reached)
        error = predicted / point.tokens_s_a_device - 1
        fitted = "yes" if index in FITTED else "no"
        lengths = f"{point.name} ({point.prompt_tokens} in, {point.answer_tokens} out)"
        published = f"{point.tokens_s_a_device:,.0f}"
        name = f"{index + 1}. {lengths}"
        yield name, published, f"{predicted:,.0f}", _percent(error), fitted, point.source


def _percent(error: float) -> str:
    rounded = round(100 * error)
    return f"{rounded:+d} %" if rounded else "0 %"


def _pairs() -> Rows:
    for pair in combinations(range(len(POINTS)), 2):
        name = " and ".join(str(index + 1) for index in pair)
        found: Efficiency | None = fit(POINTS[pair[0]], POINTS[pair[1]])
        if found is None or not found.is_possible:
            yield (name, *("-" for _ in range(2 + len(POINTS))))
            continue
        errors = (_percent(p.predicted(found) / p.tokens_s_a_device - 1) for p in POINTS)
        yield (name, f"{found.prefill:.3f}", f"{found.decode:.3f}", *errors)


def _served() -> list[Entry]:
    """The catalog without built-in models: their size is their trainer's affair."""
    return [entry for entry in entries() if not entry.source.startswith("builtin://")]


def _planned(entry: Entry, variant: Variant, context: int) -> Plan:
    resources = variant.resources
    return plan(
        Ask(
            model=entry.name,
            architecture=entry.architecture,
            hardware=hardware_named(resources.accelerator),
            weights=variant.weights,
            cache=variant.cache,
            context=context,
            concurrency=CONCURRENCY,
            tensor_parallel=resources.tensor_parallel,
            pipeline_parallel=resources.pipeline_parallel,
        )
    )


def _catalog() -> Rows:
    for entry in _served():
        limit = entry.architecture.max_context
        for variant in entry.variants:
            longest = entry.manifest(variant).engine.max_model_len or limit
            try:
                usual = _planned(entry, variant, min(CONTEXT, longest))
                most = _planned(entry, variant, longest)
            except PenstockError as exc:
                yield (entry.name, variant.resources.pool, str(exc), *("" for _ in range(9)))
                continue
            yield (
                entry.name,
                variant.resources.pool,
                f"{usual.weights}",
                f"{usual.weights_gib:.3g}",
                f"{usual.cache_gib_a_sequence:.2f}",
                str(usual.max_concurrency),
                str(most.max_concurrency),
                *_rates(usual),
                f"{usual.start_up[2].start_s:.0f}",
            )


def _rates(planned: Plan) -> tuple[str, str, str, str]:
    if planned.throughput is None:
        prompts = planned.prefill
        bar = f"{prompts.low:,.0f} - {prompts.high:,.0f}"
        return f"{prompts.expected:,.0f} of prompts", bar, "", ""
    rate, price = planned.throughput, planned.prices[0]
    return (
        f"{rate.expected:,.0f}",
        f"{rate.low:,.0f} - {rate.high:,.0f}",
        f"{price.expected_usd:.2f}",
        f"{price.low_usd:.2f} - {price.high_usd:.2f}",
    )


def _parameters() -> Rows:
    for entry in _served():
        model, published = entry.architecture, entry.published
        yield (
            entry.name,
            f"{model.parameters / 1e9:.4g}",
            f"{published.parameters_b}" if published else "",
            f"{model.active_parameters / 1e9:.3g}",
            published.source if published else "ours",
        )


def _hardware() -> Rows:
    for one in HARDWARE:
        peaks = (one.bf16_tflops, one.fp8_tflops, one.fp4_tflops)
        yield (
            f"{one.name}: {one.title}",
            f"{one.memory_gib:.1f}",
            str(one.bandwidth_tb_s),
            " / ".join("-" if peak is None else f"{peak:g}" for peak in peaks),
            f"{one.link_gb_s:g}",
            f"{one.gpu_hour_usd:.2f}",
            one.source,
        )


def _table(head: tuple[str, ...], rows: Rows) -> list[str]:
    cells = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]

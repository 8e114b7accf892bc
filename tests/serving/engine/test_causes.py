"""The one sentence for the operator, from what engines leave behind."""

import pytest

from serving.engine.causes import of_exit, of_text

CORE_FAILED = """\
(EngineCore pid=12) ERROR 11-21 18:37:13 [core.py:1510]     param.data.copy_(loaded_weight)
(EngineCore pid=12) ERROR 11-21 18:37:13 [core.py:1510] RuntimeError: The size of tensor a (256) \
must match the size of tensor b (128) at non-singleton dimension 1
Traceback (most recent call last):
  File "core_client.py", line 682, in __init__
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_cause_is_the_core_processes_own_exception() -> None:
    cause = of_exit(1, None, CORE_FAILED)
    assert cause.sentence.startswith("The size of tensor a (256) must match")
    assert cause.hint == "the model's weights do not fit its config.json"


def test_consequence_is_better_than_nothing() -> None:
    cause = of_exit(1, None, CORE_FAILED.splitlines()[-1])
    assert cause.sentence.startswith("Engine core initialization failed")


def test_argparse_error_is_a_cause() -> None:
    log = "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --no-such=1\n"
    cause = of_exit(2, None, log)
    assert cause.sentence == "unrecognized arguments: --no-such=1"
    assert cause.hint is not None and "vLLM" in cause.hint


def test_chatter_is_no_cause() -> None:
    log = "INFO 11-21 18:00:00 [x.py:1] Using max model len 2048\n - leaked function 'error'\n"
    assert of_exit(3, None, log).sentence == "the engine ended with exit code 3"


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        ("SIGKILL", "the engine was killed (SIGKILL)"),
        ("SIGSEGV", "the engine was ended by SIGSEGV"),
    ],
)
def test_signal_is_named(signal: str, sentence: str) -> None:
    assert of_exit(None, signal, "").sentence == sentence


def test_pydantic_error_names_field_and_fault() -> None:
    text = (
        "1 validation error for CacheConfig\ngpu_memory_utilization\n"
        "  Input should be less than or equal to 1 [type=less_than_equal, input_value=7.5, x]\n"
    )
    cause = of_text(text)
    assert cause.sentence == "gpu_memory_utilization: Input should be less than or equal to 1"


def test_pydantic_verdict_is_taken_alone_and_its_list_is_cut() -> None:
    text = (
        "1 validation error for ModelConfig\n"
        "  Value error, Model architectures ['Foo'] are not supported for now."
        " Supported architectures: dict_keys(['A', 'B']) [type=value_error, input_value=...]\n"
    )
    cause = of_text(text)
    assert cause.sentence == "Model architectures ['Foo'] are not supported for now."
    assert cause.hint == (
        "this version of vLLM cannot serve the model; see architectures in its config.json"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "To serve at least one request with the model's max seq len (40960), 4.38 GiB KV cache"
            " is needed, which is larger than the available KV cache memory (0.06 GiB).",
            "raise engine.kv_cache_gib or lower engine.max_model_len",
        ),
        (
            "User-specified max_model_len (99999) is greater than the derived max_model_len",
            "lower engine.max_model_len",
        ),
        ("invalid tool call parser: nope (chose from { hermes })", "see engine.tool_parser"),
    ],
)
def test_known_errors_have_a_hint(text: str, hint: str) -> None:
    cause = of_text(text)
    assert cause.hint is not None and cause.hint.startswith(hint)


def test_long_error_is_cut() -> None:
    assert len(of_text("x" * 5000).sentence) == 400


def test_empty_error_is_still_a_sentence() -> None:
    assert of_text(" \n").sentence == "no reason was given"

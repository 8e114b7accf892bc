"""A manifest as vLLM's command line."""

from pathlib import Path

import pytest

from models.manifest import Manifest, parse_manifest
from serving.engine.arguments import STARTUP_PLAN, vllm_arguments, vllm_environment


def model(**fields: object) -> Manifest:
    return parse_manifest({"name": "m", "source": "file:///w"} | fields)


def arguments(**fields: object) -> tuple[str, ...]:
    return vllm_arguments(model(**fields), Path("/w"))


GPU = {"accelerator": "h200", "gpus": 4, "tensor_parallel": 2, "pipeline_parallel": 2}


def test_engine_on_a_cpu_is_eager_with_a_small_kv_cache_and_a_quiet_executor() -> None:
    args = arguments()
    assert "--enforce-eager" in args
    assert "--kv-cache-memory-bytes=67108864" in args  # 64 MiB; vLLM would take 92 % of the machine
    assert "--distributed-executor-backend=uni" in args  # `mp` spins on a whole core


def test_engine_on_gpus_keeps_vllms_defaults() -> None:
    args = arguments(resources=GPU)
    assert "--no-enforce-eager" in args
    assert not any(arg.startswith("--kv-cache-memory-bytes") for arg in args)
    assert not any(arg.startswith("--distributed-executor-backend") for arg in args)
    assert {"--tensor-parallel-size=2", "--pipeline-parallel-size=2"} <= set(args)


def test_room_for_adapters_is_asked_for_where_the_manifest_wants_it() -> None:
    lora = {"max_rank": 32, "at_once": 2, "in_memory": 8}
    args = arguments(engine={"lora": lora})
    room = {"--enable-lora", "--max-lora-rank=32", "--max-loras=2", "--max-cpu-loras=8"}
    assert room <= set(args)
    assert "--enable-lora" not in arguments()
    opened = vllm_environment(model(engine={"lora": lora}), ())
    assert opened["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in vllm_environment(model(), ())


def test_model_that_embeds_is_run_so() -> None:
    assert "--runner=pooling" in arguments(task="embed")
    assert "--runner=pooling" not in arguments(task="generate")


def test_several_ranks_on_a_cpu_need_processes() -> None:
    assert "--distributed-executor-backend=mp" in arguments(resources={"tensor_parallel": 2})


def test_model_is_served_under_its_name_behind_the_guard() -> None:
    args = arguments()
    assert {"--model=/w", "--served-model-name=m"} <= set(args)
    assert "--middleware=serving.engine.guard.TokenGuard" in args
    assert "--enable-request-id-headers" in args


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"max_model_len": 512}, "--max-model-len=512"),
        ({"dtype": "float32"}, "--dtype=float32"),
        ({"quantization": "fp8"}, "--quantization=fp8"),
        ({"max_num_seqs": 7}, "--max-num-seqs=7"),
        ({"kv_cache_gib": 1}, "--kv-cache-memory-bytes=1073741824"),
        ({"enforce_eager": False}, "--no-enforce-eager"),
        ({"reasoning_parser": "qwen3"}, "--reasoning-parser=qwen3"),
        ({"args": {"block_size": 32}}, "--block-size=32"),
        ({"args": {"--swap-space": 0.5}}, "--swap-space=0.5"),
        ({"args": {"enable_prefix_caching": False}}, "--no-enable-prefix-caching"),
        ({"args": {"enable_chunked_prefill": True}}, "--enable-chunked-prefill"),
    ],
)
def test_field_becomes_argument(engine: dict[str, object], expected: str) -> None:
    assert expected in arguments(engine=engine)


def test_tool_parser_switches_tool_choice_on() -> None:
    args = arguments(engine={"tool_parser": "hermes"})
    assert {"--enable-auto-tool-choice", "--tool-call-parser=hermes"} <= set(args)


def test_fields_that_are_not_given_leave_vllm_its_own_choice() -> None:
    given = " ".join(arguments())
    for name in ("max-model-len", "quantization", "tool", "reasoning", "trust-remote-code"):
        assert name not in given


def test_engine_sees_the_hosts_gpus_alone() -> None:
    environment = vllm_environment(model(resources=GPU), ("4", "5"))
    assert environment == {"CUDA_VISIBLE_DEVICES": "4,5", STARTUP_PLAN: "1"}


def test_room_for_the_kv_cache_is_measured_once_unless_the_manifest_says_it() -> None:
    assert STARTUP_PLAN not in vllm_environment(model(), ())
    for engine in ({"kv_cache_gib": 2}, {"build": "other"}):
        assert STARTUP_PLAN not in vllm_environment(model(resources=GPU, engine=engine), ("0",))
    assert vllm_environment(model(), ()) == {}

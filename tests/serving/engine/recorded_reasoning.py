"""Has vLLM's own output processor tell the recorder of reasoning, by vLLM's own parser; no engine.

Run as `python -m tests.serving.engine.recorded_reasoning MODEL RECORDER`, with a model's folder for
its tokenizer: prints completion and reasoning tokens of each attempt, after each step, as JSON.
"""

import json
import os
import sys
from pathlib import Path

from serving.engine import recorder, vllm_patches
from serving.engine import recorder_file as layout

ATTEMPTS = {
    "thinks": ({"chat_template_kwargs": {}}, False),
    "hides": ({"chat_template_kwargs": {}}, True),  # the tenant does not want to see it
    "completes": (None, None),  # a plain completion
    "answers": ({"chat_template_kwargs": {"enable_thinking": False}}, True),
}


def main(model: Path, path: Path) -> dict[str, list[tuple[int, int]]]:
    """What the recorder's file says of each of ATTEMPTS after each step."""
    os.environ[recorder.PATH_VARIABLE] = str(path)
    from transformers import AutoTokenizer
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.output_processor import OutputProcessor

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<think>", "</think>"])
    vocabulary = tokenizer.get_vocab()
    end, word = vocabulary["</think>"], vocabulary["x"]
    vllm_patches.record_outputs("qwen3")
    processor = OutputProcessor(tokenizer, log_stats=False)
    counts = recorder.of_this_process()
    assert counts is not None
    file = layout.open_existing(path)
    told: dict[str, list[tuple[int, int]]] = {}
    for number, (name, (arguments, ended)) in enumerate(ATTEMPTS.items()):
        attempt_id = f"{number:032x}-1"
        counts.begin(attempt_id)
        params = SamplingParams(max_tokens=99, output_kind=RequestOutputKind.DELTA)
        request = EngineCoreRequest(
            request_id=attempt_id, prompt_token_ids=[word] * 2, mm_features=None,
            sampling_params=params, pooling_params=None, arrival_time=0.0, lora_request=None,
            cache_salt=None, data_parallel_rank=None, external_req_id=f"chatcmpl-{attempt_id}",
        )  # fmt: skip
        request.reasoning_parser_kwargs, request.reasoning_ended = arguments, ended
        processor.add_request(request, "xx")
        told[name] = []
        for ids in ([word], [word, word], [end, word], [word]):
            processor.process_outputs([EngineCoreOutput(attempt_id, ids)])
            slot = file.read(number)
            assert slot is not None
            told[name].append((slot.completion, slot.reasoning))
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))

"""Has vLLM's output processor tell the recorder of each request and each token; imports no vLLM.

`vllm_patches` hands the class over. What is counted is counted after vLLM has cut off what comes
after a stop string, and before any tenant's task can see it.
"""

from collections.abc import Sequence
from typing import Any

from serving.engine import recorder
from serving.engine.reasoning import Readers

READER = "penstock_reader"
"""What a request's state in vLLM is given: it lives as long as that."""


def hook(processor: type[Any], readers: Readers | None = None) -> None:
    """Wraps `add_request` and `process_outputs` of vLLM's OutputProcessor (0.32.0).

    Args:
        processor: The class.
        readers: Tell reasoning from answers, where the model has a parser for it.
    """
    ordinary_add, ordinary_process = processor.add_request, processor.process_outputs

    def add_request(self: Any, request: Any, *args: Any, **named: Any) -> None:
        ordinary_add(self, request, *args, **named)
        if (counts := recorder.of_this_process()) is not None:
            name = getattr(request, "external_req_id", None) or request.request_id
            counts.admit(request.request_id, name)
            if readers is not None:
                _begin_to_read(self, request, readers)

    def process_outputs(
        self: Any,
        outputs: Sequence[Any],
        at: Any = None,
        stats: Any = None,
        *args: Any,
        **named: Any,
    ) -> Any:
        counts = recorder.of_this_process()
        if counts is None:
            return ordinary_process(self, outputs, at, stats, *args, **named)
        # Looked up before: a request that ends here is gone afterwards.
        states = [self.request_states.get(output.request_id) for output in outputs]
        fresh = [state is not None and state.is_prefilling for state in states]
        before = _engine_counts(stats)
        result = ordinary_process(self, outputs, at, stats, *args, **named)
        for output, state, first in zip(outputs, states, fresh, strict=True):
            if state is None:
                continue
            made = output.new_token_ids
            reader = None if readers is None else getattr(state, READER, None)
            reasoning = 0 if reader is None else reader.count(made)
            counts.produce(output.request_id, len(made), reasoning)
            if first:
                # Further answers to one prompt (`n`) are no further prompts to who pays.
                payer = output.request_id if state.request_index == 0 else ""
                counts.prefill(payer, state.prompt_len, state.num_cached_tokens)
        after = _engine_counts(stats)
        counts.engine_counts(after[0] - before[0], after[1] - before[1])
        return result

    processor.add_request = add_request
    processor.process_outputs = process_outputs


def _begin_to_read(processor: Any, request: Any, readers: Readers) -> None:
    """Only what vLLM itself parses has reasoning; plain completions, say, have none."""
    arguments = getattr(request, "reasoning_parser_kwargs", None)
    state = processor.request_states.get(request.request_id)
    if arguments is None or state is None or hasattr(state, READER):
        return
    prompt, ended = request.prompt_token_ids or [], getattr(request, "reasoning_ended", None)
    setattr(state, READER, readers.reader(processor.tokenizer, arguments, prompt, ended))


def _engine_counts(stats: Any) -> tuple[int, int]:
    """vLLM's own counts of prompt and completion tokens, of the step so far."""
    if stats is None:
        return 0, 0
    return int(stats.num_prompt_tokens), int(stats.num_generation_tokens)

"""Which fields of a body a tenant may set, for each kind of request; everything else is refused.

The fields of OpenAI's and Anthropic's APIs and vLLM's documented sampling extras. Left out on
purpose: what reaches into other requests or the engine (`priority`, `cache_salt`, `request_id`,
`kv_transfer_params`, `vllm_xargs`, `stream_interval`, ...), templates (`chat_template`), what
loads files or unpickles (`prompt_embeds`, `media_io_kwargs`, `mm_processor_kwargs`), and what
makes one request cost as many (`use_beam_search`, `best_of`).
"""

import orjson

from models.errors import BadRequestError

JsonObject = dict[str, object]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def encode_json(value: object) -> bytes:
    """JSON again.

    Raises:
        BadRequestError: If it is nested so deeply that nobody should have to read it: 254 levels.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as exc:
        raise BadRequestError("the body is nested too deeply, or holds what JSON cannot") from exc


SAMPLING = _names("""
    frequency_penalty logit_bias logprobs max_tokens n presence_penalty response_format seed stop
    stream stream_options temperature top_p
    top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    truncation_side prompt_logprobs logprob_token_ids allowed_token_ids bad_words watermarking
    thinking_token_budget structured_outputs add_special_tokens return_token_ids
    return_tokens_as_token_ids repetition_detection
""")
"""How the next token is chosen, at OpenAI and as vLLM's documentation of sampling goes on."""

TENANT = _names("""
    model user service_tier metadata store safety_identifier prompt_cache_key
    prompt_cache_retention session_id
""")
"""Who asks, and for which class of service."""

CHAT = (
    SAMPLING
    | TENANT
    | _names("""
    messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls
    reasoning_effort verbosity modalities audio prediction web_search_options functions
    function_call include_reasoning echo add_generation_prompt continue_final_message documents
    chat_template_kwargs return_prompt_text
""")
)

COMPLETION = SAMPLING | TENANT | _names("prompt echo suffix")

RESPONSES = TENANT | _names("""
    input instructions background include max_output_tokens max_tool_calls parallel_tool_calls
    previous_response_id conversation prompt reasoning stream stream_options temperature text
    tool_choice tools top_logprobs top_p top_k min_p truncation presence_penalty
    frequency_penalty logit_bias include_reasoning skip_special_tokens include_stop_str_in_output
    watermarking
""")

MESSAGES = _names("""
    model messages max_tokens metadata output_config service_tier stop_sequences stream system
    temperature thinking tool_choice tools top_k top_p chat_template_kwargs watermarking
""")

COUNT_TOKENS = _names(
    "model messages output_config system thinking tool_choice tools chat_template_kwargs"
)

POOLING = _names(
    "model user truncate_prompt_tokens truncation_side padding add_special_tokens use_activation"
)

EMBEDDING = POOLING | _names("input messages encoding_format dimensions embed_dtype endianness")

SCORING = POOLING | _names("max_tokens_per_query max_tokens_per_doc instruction")

SCORE = SCORING | _names("text_1 text_2 queries documents items data_1 data_2")

RERANK = SCORING | _names("query documents top_n")

TOKENIZE = _names("""
    model prompt messages add_generation_prompt continue_final_message add_special_tokens
    return_token_strs tools chat_template_kwargs
""")

DETOKENIZE = _names("model tokens")

TRANSCRIPTION = _names("""
    file model language prompt response_format timestamp_granularities timestamp_granularities[]
    stream stream_include_usage temperature top_p top_k min_p seed frequency_penalty
    repetition_penalty presence_penalty max_completion_tokens hotwords
""")

TRANSLATION = TRANSCRIPTION | _names("to_language")

SHOWN_CHARS = 64
"""As much of an unknown field's name stands in the answer."""


def keep_allowed(fields: JsonObject, allowed: frozenset[str]) -> JsonObject:
    """The fields that are set; `null` counts as not set, and is left out, whatever its name.

    Raises:
        BadRequestError: Naming the first field that tenants may not set.
    """
    kept = {name: value for name, value in fields.items() if value is not None}
    for name in kept:
        if name not in allowed:
            shown = name[:SHOWN_CHARS]
            raise BadRequestError(f"{shown} may not be set through this endpoint", param=shown)
    return kept

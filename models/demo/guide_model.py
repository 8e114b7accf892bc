"""Where the guide's weights lie and how it is prompted; imports no machine-learning library."""

from pathlib import Path
from typing import Final

GUIDE_DIR: Final[Path] = Path(__file__).parent / "guide"
"""A Hugging Face model folder: config, tokenizer with chat template, weights."""

GUIDE_MAX_MODEL_LEN: Final[int] = 2048
"""Longest prompt and answer together, in tokens."""

END_OF_TEXT: Final[str] = "<|endoftext|>"
TURN_START: Final[str] = "<|im_start|>"
TURN_END: Final[str] = "<|im_end|>"

CHAT_TEMPLATE: Final[str] = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
"""ChatML, as Qwen's models have it; no system message is added where the caller gave none."""


def render(messages: list[tuple[str, str]]) -> str:
    """The text of a conversation, `(role, content)` each, up to the start of the answer.

    Equal to what `CHAT_TEMPLATE` renders, without Jinja: training renders a hundred thousand.
    """
    turns = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in messages)
    return f"{turns}{TURN_START}assistant\n"

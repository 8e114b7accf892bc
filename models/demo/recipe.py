"""The numbers that shape the training of the guide."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number that shapes the training."""

    seed: int = 20
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    dropout: float = 0.1
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    ema_decay: float = 0.995
    intent_loss: float = 0.5
    """Weight of a second head that names the intent from the last token of the prompt."""
    shortened: float = 0.75
    """Share of examples of which only the first tokens of the answer are trained: they decide
    which answer it is, and the rest follows from them."""
    shortened_tokens: int = 8
    system_prompt: float = 0.3
    second_turn: float = 0.05
    as_json: float = 0.05
    """Share of examples answered by a JSON object, for callers who ask for structured output."""
    bpe_dropout: float = 0.1

"""The parts of a transformer's layer, in numbers: what mixes tokens, and what follows it.

Counts are of values, not bytes. Operations count a multiply and an add as two.
"""

from dataclasses import dataclass
from typing import Protocol


class Mixer(Protocol):
    """What mixes tokens in one layer, and what it remembers of them."""

    def parameters(self, hidden: int) -> int:
        """Values of the layer's mixer."""
        ...

    def cache_values(self, tokens: float) -> float:
        """Values that one layer keeps for a sequence of so many tokens."""
        ...

    def cache_share(self, ranks: int) -> float:
        """Share of the cache that each of the tensor-parallel ranks keeps."""
        ...

    def flops(self, context: float) -> float:
        """Operations for one token that looks at `context` others, without the weights'."""
        ...


@dataclass(frozen=True, slots=True)
class GroupedQuery:
    """Attention with fewer key/value heads than query heads (Ainslie et al. 2023, GQA)."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """Tokens that a sliding window sees; none: all."""
    qkv_bias: bool = False
    output_bias: bool = False
    head_norms: bool = False
    """Norms of queries and keys for each head's values."""
    sinks: bool = False
    """A learned sink for each head."""
    gated: bool = False
    """Queries come with a gate of their size."""
    cached: bool = True
    """False in an encoder, which generates nothing."""

    def parameters(self, hidden: int) -> int:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        count = hidden * (queries * (3 if self.gated else 2) + 2 * keys)
        if self.qkv_bias:
            count += queries + 2 * keys
        if self.output_bias:
            count += hidden
        if self.head_norms:
            count += 2 * self.head_dim
        return count + (self.heads if self.sinks else 0)

    def cache_values(self, tokens: float) -> float:
        if not self.cached:
            return 0.0
        seen = tokens if self.window is None else min(tokens, self.window)
        return 2 * self.kv_heads * self.head_dim * seen

    def cache_share(self, ranks: int) -> float:
        return 1 / min(ranks, self.kv_heads)  # beyond that, ranks keep copies of a head

    def flops(self, context: float) -> float:
        seen = context if self.window is None else min(context, self.window)
        return 4 * self.heads * self.head_dim * seen


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, section 2.1): one small vector a token."""

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    def parameters(self, hidden: int) -> int:
        key_dim = self.nope_dim + self.rope_dim
        if self.q_rank is None:
            count = hidden * self.heads * key_dim
        else:
            count = hidden * self.q_rank + self.q_rank + self.q_rank * self.heads * key_dim
        count += hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        count += self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        return count + self.heads * self.value_dim * hidden

    def cache_values(self, tokens: float) -> float:
        return (self.kv_rank + self.rope_dim) * tokens

    def cache_share(self, ranks: int) -> float:
        return 1.0  # the vector belongs to all heads: every rank keeps it whole

    def flops(self, context: float) -> float:
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.value_dim) * context


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """Linear attention with a state of constant size (Yang et al. 2024, Gated Delta Networks)."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    """Tokens that the convolution before it sees."""

    def parameters(self, hidden: int) -> int:
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        projections = hidden * (2 * keys + 2 * values + 2 * self.value_heads) + values * hidden
        return projections + self._channels * self.kernel + 2 * self.value_heads + self.value_dim

    @property
    def _channels(self) -> int:
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def cache_values(self, tokens: float) -> float:
        state = self.value_heads * self.key_dim * self.value_dim
        return state + self._channels * (self.kernel - 1)

    def cache_share(self, ranks: int) -> float:
        return 1 / min(ranks, self.key_heads)

    def flops(self, context: float) -> float:
        return 8 * self.value_heads * self.key_dim * self.value_dim


@dataclass(frozen=True, slots=True)
class Dense:
    """A feed-forward network that every token passes."""

    size: int
    matrices: int = 3
    """3 with a gate (SwiGLU, GeGLU), 2 without."""
    biased: bool = False

    def parameters(self, hidden: int) -> int:
        """Values of the network."""
        biases = (self.matrices - 1) * self.size + hidden if self.biased else 0
        return self.matrices * hidden * self.size + biases

    def expert_parameters(self, hidden: int) -> int:
        """Values in routed experts: none."""
        return 0

    def active_experts(self, hidden: int) -> float:
        """Values in experts that one token passes: none."""
        return 0.0

    def touched(self, tokens: float) -> float:
        """Share of the routed experts that a batch reads."""
        return 0.0

    @property
    def width(self) -> int:
        """Inner values of one token."""
        return self.size


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: each token passes `active` of `count`, and the shared ones."""

    count: int
    active: int
    size: int
    shared_size: int = 0
    """Inner size of all shared experts together."""
    shared_gate: bool = False
    router_bias: bool = False
    biased: bool = False

    def parameters(self, hidden: int) -> int:
        """Values of router, shared and routed experts."""
        router = hidden * self.count + (self.count if self.router_bias else 0)
        shared = 3 * hidden * self.shared_size + (hidden if self.shared_gate else 0)
        return router + shared + self.expert_parameters(hidden)

    def expert_parameters(self, hidden: int) -> int:
        """Values in routed experts."""
        return self.count * self._one(hidden)

    def active_experts(self, hidden: int) -> float:
        """Values in the routed experts that one token passes."""
        return self.active * self._one(hidden)

    def _one(self, hidden: int) -> int:
        return 3 * hidden * self.size + (2 * self.size + hidden if self.biased else 0)

    def touched(self, tokens: float) -> float:
        """Share of the routed experts that a batch reads, where the choice is even.

        An expert is missed by all tokens with probability (1 - active/count)^tokens.
        """
        return 1 - float((1 - self.active / self.count) ** tokens)

    @property
    def width(self) -> int:
        """Inner values of one token."""
        return self.active * self.size + self.shared_size

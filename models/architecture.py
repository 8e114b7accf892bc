"""What a transformer is made of, in numbers: parameters, cache and operations; no hardware.

    Architecture ── LayerGroup, counted ── mixer: GroupedQuery | Latent | GatedDelta
                                       └─ feed-forward: Dense | Experts

Counts are of values, not bytes. Operations count a multiply and an add as two.
"""

from dataclasses import dataclass

from models.layers import Dense, Experts, GroupedQuery, Latent, Mixer


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that are all alike."""

    count: int
    mixer: Mixer
    feedforward: Dense | Experts
    norm_values: int
    """Values of the norms of one layer."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole model."""

    family: str
    """Name of its class, as config.json has it."""
    hidden: int
    groups: tuple[LayerGroup, ...]
    vocabulary: int
    tied: bool
    """The output head is the embedding."""
    max_context: int
    """Tokens of the longest sequence it was made for."""
    generates: bool = True
    """False: an encoder, which embeds or ranks."""
    other_values: int = 0
    """Final norms, positions, a classifier, a vision tower: what is never quantized."""

    @property
    def layers(self) -> int:
        """Number of layers."""
        return sum(group.count for group in self.groups)

    @property
    def heads(self) -> int:
        """Query heads of a layer: tensor parallelism has to divide them."""
        return next(
            g.mixer.heads for g in self.groups if isinstance(g.mixer, GroupedQuery | Latent)
        )

    @property
    def embedding_values(self) -> int:
        """Values of the embedding, and of the output head where it is one of its own."""
        has_head = self.generates and not self.tied
        return self.vocabulary * self.hidden * (2 if has_head else 1)

    @property
    def expert_values(self) -> int:
        """Values in routed experts."""
        return sum(g.count * g.feedforward.expert_parameters(self.hidden) for g in self.groups)

    @property
    def dense_values(self) -> int:
        """Values of the layers outside routed experts, without norms."""
        layers = sum(
            g.count * (g.mixer.parameters(self.hidden) + g.feedforward.parameters(self.hidden))
            for g in self.groups
        )
        return layers - self.expert_values

    @property
    def norm_values(self) -> int:
        """Values of the layers' norms."""
        return sum(g.count * g.norm_values for g in self.groups)

    @property
    def parameters(self) -> int:
        """All values."""
        layers = self.dense_values + self.expert_values + self.norm_values
        return layers + self.embedding_values + self.other_values

    @property
    def active_parameters(self) -> float:
        """Values that one token is multiplied with: an embedding is only looked up."""
        experts = sum(g.count * g.feedforward.active_experts(self.hidden) for g in self.groups)
        head = self.vocabulary * self.hidden if self.generates else 0
        return self.dense_values + self.norm_values + experts + head

    def expert_values_read(self, tokens: float) -> float:
        """Values in routed experts that a batch of so many tokens reads."""
        return sum(
            g.count * g.feedforward.expert_parameters(self.hidden) * g.feedforward.touched(tokens)
            for g in self.groups
        )

    def attention_flops(self, context: float) -> float:
        """Operations of attention for one token that looks at `context` others, all layers."""
        return sum(g.count * g.mixer.flops(context) for g in self.groups)

    def cache_values(self, tokens: float, ranks: int = 1) -> float:
        """Values that each of the tensor-parallel ranks keeps for one sequence, all layers."""
        return sum(
            g.count * g.mixer.cache_values(tokens) * g.mixer.cache_share(ranks) for g in self.groups
        )

    @property
    def width(self) -> int:
        """The most inner values of one token in any layer."""
        return max(group.feedforward.width for group in self.groups)

"""Whether an answer met its model's objectives. Pure."""

from serving.protocol import ModelRoute


def tpot_s(first_byte_s: float, ended_s: float, output_tokens: int) -> float:
    """Mean time of each token after the first; 0 where there is none."""
    return max(0.0, ended_s - first_byte_s) / (output_tokens - 1) if output_tokens > 1 else 0.0


def misses(
    route: ModelRoute,
    *,
    streamed: bool,
    began_s: float,
    first_byte_s: float,
    ended_s: float,
    output_tokens: int,
) -> bool:
    """Whether an answer came later than promised; false where nothing is promised.

    A whole answer shows no first token: it has the time of both objectives together.
    """
    if route.ttft_s is None and route.tpot_s is None:
        return False
    ttft_limit_s = float("inf") if route.ttft_s is None else route.ttft_s
    tpot_limit_s = float("inf") if route.tpot_s is None else route.tpot_s
    if streamed:
        late = first_byte_s - began_s > ttft_limit_s
        return late or tpot_s(first_byte_s, ended_s, output_tokens) > tpot_limit_s
    return ended_s - began_s > ttft_limit_s + tpot_limit_s * max(0, output_tokens - 1)

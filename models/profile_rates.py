"""The rates of a plan from a measured profile; formulas give only what was not measured."""

from models.plan import Rate, Rates
from models.profile_measured import Measured
from models.roofline import Deployment


def measured_rates(
    profile: Measured,
    formulas: Rates,
    deployment: Deployment,
    batch: int,
    prompt: int,
    answer: int,
) -> Rates:
    """Rates with so many sequences; the error bar is what the profile's own line misses by.

    The formulas' where the engine has other parallel sizes than the profile was measured with.

    Args:
        profile: Measured of this model on this hardware.
        formulas: The planner's own: of them the roofline stays, and that an encoder generates
            nothing.
        deployment: The engine.
        batch: Sequences at once.
        prompt: Tokens of each prompt.
        answer: Tokens of each answer.
    """
    if not profile.fits(deployment.tensor_parallel, deployment.pipeline_parallel):
        return formulas
    factor = profile.error_factor
    generates = formulas.decode is not None
    return Rates(
        decode=_rate(1 / profile.step_s(batch), factor) if generates else None,
        prefill=_rate(profile.prefill_tokens_s, factor),
        throughput=_rate(profile.tokens_s(batch, prompt, answer), factor) if generates else None,
        roofline=formulas.roofline,
        profile=profile.title,
    )


def _rate(expected: float, factor: float) -> Rate:
    return Rate(expected=expected, low=expected / factor, high=expected * factor)

"""What the admin API says of rollouts, shared by the controller and the CLI.

GET  models/{name}/rollout              RolloutView
POST models/{name}/rollout/undo         ?to=N  a new revision with N's manifest; Applied
POST models/{name}/rollout/pause        the canary stays at its share, old engines where they are
POST models/{name}/rollout/resume       it goes on
"""

from serving.views import View


class FiguresView(View):
    """What one revision did within the present step of a canary."""

    answered: int
    failed: int
    ttft_p95_s: float | None
    """None where nothing was streamed."""
    tpot_p95_s: float | None


class CanaryView(View):
    """A new revision that gets a share of the requests."""

    stable: int
    """The revision that takes the rest."""
    share: float
    step: int
    """From 1."""
    steps: int
    paused: bool
    why: str
    """How it stands, in a sentence."""
    old: FiguresView
    new: FiguresView


class RolloutView(View):
    """How far the current revision of a model has got."""

    model: str
    revision: int
    done: bool
    """All engines that are wanted are of this revision and ready, and it gets all requests."""
    engines_wanted: int
    ready: int
    """Engines of this revision that are ready, revisions with the same engine included."""
    starting: int
    old: int
    """Engines of other revisions that still serve."""
    reason: str
    failed: bool = False
    """Its last starts failed, as `reason` says; what serves is of an older revision."""
    paused: bool = False
    """Engines of older revisions stay until it is resumed; of a canary see there."""
    canary: CanaryView | None = None

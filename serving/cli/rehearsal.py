"""What a deploy would have changed: a model's recorded demand, replayed under both manifests."""

from collections.abc import Callable, Sequence

import typer
from rich.table import Table

from autoscaler.fleet import EngineModel
from autoscaler.rehearse import recording_of, rehearse
from autoscaler.simulate import Outcome
from autoscaler.snapshot import Spec
from models.errors import BadRequestError, ModelNotFoundError
from models.manifest import Manifest
from models.profile import with_profile
from models.scaling_spec import ScalingSpec
from serving.cli import output
from serving.cli.client import AdminClient
from serving.scaling import CapacityView
from serving.views import ModelView

HOURS = 6.0
"""Of recorded demand that are replayed: a quarter of a minute of computing for each manifest."""
USUAL_START_S = 1.0


def gate(admin: AdminClient, manifests: Sequence[Manifest], *, yes: bool) -> None:
    """Shows for each manifest what it would have changed, and asks whether to go on.

    Raises:
        BadRequestError: If nobody is there to be asked.
        typer.Exit: If the answer is no.
    """
    for manifest in manifests:
        show(admin, manifest)
    if yes:
        return
    try:
        go_on = typer.confirm("Deploy?", err=True)
    except (typer.Abort, OSError) as exc:
        raise BadRequestError(
            "nobody answered whether to deploy", hint="--yes deploys without asking"
        ) from exc
    if not go_on:
        output.stderr().print("nothing was deployed")
        raise typer.Exit(1)


def show(admin: AdminClient, manifest: Manifest) -> None:
    """Replays the model's demand and prints both outcomes side by side."""
    console = output.stderr()
    try:
        model = admin.model(manifest.name)
    except ModelNotFoundError:
        console.print(f"{manifest.name} is new: there is no demand of its own to replay")
        return
    recording = recording_of(manifest.name, admin.demand(manifest.name, HOURS).seconds)
    if recording is None:
        console.print(f"nobody asked for {manifest.name} within {HOURS:g} h: nothing to replay")
        return
    capacity = admin.capacity(manifest.name)
    engine = engine_of(capacity, manifest)
    if engine is None:
        console.print(f"what an engine of {manifest.name} can do is not known yet: no replay")
        return
    hosts = hosts_of(admin, model)
    before, after = (
        rehearse(
            recording, name, spec_at(scaling), engine, capacity.starts_s or [USUAL_START_S],
            min(hosts, scaling.most),
        )
        for name, scaling in (("as it is", model.manifest.scaling), ("as asked", manifest.scaling))
    )  # fmt: skip
    console.print(
        f"{manifest.name}: {len(recording.trace)} requests of the last {HOURS:g} h replayed; "
        f"an engine, {capacity.source}: {engine.prefill_tps:.0f} prompt tokens/s, a step "
        f"{engine.step_ms:.1f} ms + {engine.step_ms_per_seq:.2f} ms a sequence. Other models, and "
        "changes of the engine but its slots, are not part of it"
    )
    console.print(_table((before, after)))


def spec_at(scaling: ScalingSpec) -> Callable[[float], Spec]:
    """What the policy is promised at a moment, in Unix seconds."""

    def spec(at: float) -> Spec:
        lowest, highest = scaling.bounds_at(at)
        slo = scaling.slo
        return Spec(
            lowest, highest, scaling.idle_timeout_s, slo.ttft_s, slo.tpot_s, slo.attainment,
            scaling.headroom,
        )  # fmt: skip

    return spec


def engine_of(capacity: CapacityView, manifest: Manifest) -> EngineModel | None:
    """The simulated engine: what is known of the current one, with the new manifest's slots."""
    if capacity.prefill_tps is None or capacity.step_s is None or capacity.step_per_seq_s is None:
        return None
    return EngineModel(
        slots=with_profile(manifest).engine.max_num_seqs,
        prefill_tps=capacity.prefill_tps,
        step_ms=1000 * capacity.step_s,
        step_ms_per_seq=1000 * capacity.step_per_seq_s,
        chunk_tokens=capacity.chunk_tokens or 2048,
    )


def hosts_of(admin: AdminClient, model: ModelView) -> int:
    """Hosts that the model's pool has, or is to have; at least one."""
    pools = {pool.name: pool for pool in admin.status().pools}
    pool = pools.get(model.pool)
    return 1 if pool is None else max(1, pool.hosts_wanted, pool.hosts)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in (
        "SLO MET", "ENGINE HOURS", "TTFT P50 S", "TTFT P99 S", "TPOT P99 S", "COLD HITS", "CHANGES",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for one in outcomes:
        table.add_row(
            one.name, f"{one.attainment:.2%}", f"{one.gpu_hours:.2f}", f"{one.ttft_p50_s:.2f}",
            f"{one.ttft_p99_s:.2f}", f"{one.tpot_p99_s:.3f}", str(one.cold_hits),
            str(one.scale_events),
        )  # fmt: skip
    return table

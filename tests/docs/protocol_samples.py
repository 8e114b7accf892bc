"""What gateways, hosts and the controller say to each other, one message of each kind.

    python -m tests.docs.protocol_samples FOLDER

writes the messages (`said.json`) and their JSON schemas (`schemas.json`), as this version has them.
`tests/docs/protocol` holds those of the version before this one; written anew at a release, from
the release's own commit.
"""

import json
import sys
from pathlib import Path
from typing import Any

from models.manifest import Manifest
from serving import identities, metered, protocol, shares
from serving.messages import Message

HERE = Path(__file__).parent / "protocol"
GUIDE = Manifest(name="guide", source="builtin://guide")

BY_THE_CONTROLLER = (protocol.StartPhase.NODE_STARTED, protocol.StartPhase.FIRST_TOKEN)
"""Phases that no host tells of."""

LOAD = protocol.EngineLoadReport(
    running=2, waiting=1, kv_use=0.25, kv_tokens=4096, decode_steps=100, decode_seqs=150.0,
    decode_seqs_squared=300.0, decode_s=1.5, decode_seqs_s=2.25, mixed_steps=3,
    mixed_prompt_tokens=640, mixed_seqs=4.0, mixed_s=0.1,
)  # fmt: skip
ENGINE = protocol.EngineReport(
    engine_id="guide-1", model="guide", revision=1, phase=protocol.EnginePhase.READY,
    start_id="start-1", url="http://127.0.0.1:41234", token="engine-token", slots=8,
    max_model_len=512, pid=4242,
    marks=tuple(
        protocol.PhaseMark(phase=phase, at=1000.0 + number)
        for number, phase in enumerate(protocol.StartPhase)
        if phase not in BY_THE_CONTROLLER
    ),
    log_path="/var/log/guide-1.log", load=LOAD,
)  # fmt: skip
ROUTE = protocol.ModelRoute(
    name="guide", state=protocol.ModelState.READY, created=1000, max_model_len=512,
    keep_alive_s=5.0, ttft_s=2.0, tpot_s=0.1,
    endpoints=(
        protocol.EndpointRoute(
            engine_id="guide-1", url="http://127.0.0.1:41234", token="engine-token", revision=1,
            slots=8, kv_tokens=4096,
        ),
    ),
    canary=protocol.CanaryRoute(revisions=(1,), share=0.1, sticky="tenant"),
)  # fmt: skip
DEMAND = protocol.ModelDemand(
    model="guide", queued=2, queued_tokens=300, oldest_wait_s=0.5, arrivals=3, arrived_tokens=450,
    prefill_tokens=10, finished=1, finished_tokens=90, queued_prompt_tokens=100,
    arrived_prompt_tokens=150, finished_output_tokens=60, missed=1, in_flight={"guide-1": 2},
    start_id="start-1",
    first_tokens=(
        protocol.FirstToken(start_id="start-1", engine_id="guide-1", at=1010.0, after_s=0.4),
    ),
    revisions=(
        protocol.RevisionCounts(revision=1, answered=2, failed=1, ttft={3: 1}, tpot={2: 1}),
    ),
)  # fmt: skip
KEY = identities.KeyRecord(
    key_id="key-1", name="web", role=identities.Role.INFERENCE, prefix="pk-abc", salt="salt",
    digest="digest", org_id="org-1", project_id="proj-1", models=("guide",), expires_at=2000.0,
    previous=identities.KeySecret(prefix="pk-old", salt="salt", digest="digest"),
)  # fmt: skip
METER = shares.MeterReport(
    limit_id="limit-1", kind=shares.MeterKind.REQUESTS, used=5, held=10, wanted=7, short=2
)

SAID: tuple[Message, ...] = (
    protocol.RoutesDelta(version=7, full=True, models=(ROUTE,), removed=("gone",)),
    identities.IdentitiesDelta(
        version=9, full=True, keys=(KEY,), removed=("key-0",),
        limits=(
            identities.LimitRecord(
                limit_id="limit-1", scope_id="org-1", requests_per_min=60, concurrent=4,
                input_tokens_per_min=1000, output_tokens_per_min=1000, max_tokens=100,
                budget_day=10, budget_month=100,
            ),
        ),
        prices=(identities.TokenPrice(price_id="price-1", input=3, cached=1, output=9),),
    ),
    protocol.DemandReport(
        gateway_id="gw-1", models=(DEMAND,), suspect=("guide-0",),
        quarantined=(
            protocol.QuarantinedRequest(
                model="guide", fingerprint="f", request_id="req-1", engine_ids=("guide-0",)
            ),
        ),
    ),
    protocol.DemandReply(leases={"guide-1": 8}, quarantined=("f",)),
    shares.ShareReport(gateway_id="gw-1", meters=(METER,)),
    shares.ShareReply(
        shares=(
            shares.Share(
                limit_id="limit-1", kind=shares.MeterKind.REQUESTS, granted=12, more=True
            ),
        ),
    ),
    metered.UsageBatch(
        gateway_id="gw-1",
        rows=(
            metered.UsageRow(
                usage_id="u-1", org_id="org-default", project_id="proj-default", key_id="key-1",
                model="guide", revision=1, route="/v1/chat/completions", tier="default",
                status=metered.UsageStatus.COMPLETE, http_status=200, at=1010.0, ttft_s=0.4,
                duration_s=1.0, attempts=1, engine_id="guide-1", prompt=10, cached=2,
                completion=5, delivered=5,
            ),
        ),
    ),
    metered.UsageReceipt(new=1),
    metered.AttemptBatch(
        engine_id="guide-1", final=True,
        rows=(
            metered.AttemptRow(
                attempt_id="u-1-1", outcome=metered.Outcome.ENDED, started_at=1010.0,
                ended_at=1011.0, prompt=10, cached=2, completion=5,
            ),
        ),
        totals=metered.EngineTotals(
            attempts=1, prompt=10, completion=5, other_prompt=1, other_completion=1,
            engine_prompt=11, engine_completion=6,
        ),
    ),
    metered.AttemptReceipt(new=1),
    protocol.HostRegistration(
        host_id="host-1", pool="cpu", node="node-1", address="127.0.0.1", accelerators=("0",),
        pid=4000, engine=ENGINE,
    ),
    protocol.HostAdmission(known=True),
    protocol.Assignment(
        version=5, prefetch=(GUIDE,), prefetch_id="p-1",
        engine=protocol.EngineAssignment(
            engine_id="guide-1", revision=1, manifest=GUIDE, start_id="start-1"
        ),
    ),
    protocol.HostReport(
        engine=ENGINE,
        fetches=(
            protocol.FetchReport(
                model="guide", source="builtin://guide", done_bytes=10, total_bytes=10, done=True
            ),
        ),
    ),
)  # fmt: skip


def bare(schema: Any) -> Any:
    """A schema without its prose."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    prose = {key for key in ("title", "description") if isinstance(schema.get(key), str)}
    return {key: bare(value) for key, value in schema.items() if key not in prose}


def write(folder: Path) -> None:
    """Writes what this version says, and how it reads."""
    said = {type(one).__name__: one.model_dump(mode="json") for one in SAID}
    schemas = {type(one).__name__: bare(type(one).model_json_schema()) for one in SAID}
    for name, content in (("said", said), ("schemas", schemas)):
        text = json.dumps(content, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

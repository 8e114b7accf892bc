"""Where each process runs: settings from `PENSTOCK_*` variables, read once at its start.

What a model is stands in its manifest, not here. A variable that no setting has is an error.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import BadRequestError
from models.faults import faults_of
from models.secrets import Secrets
from serving.prices import Capacity

PREFIX = "PENSTOCK_"
SECRET_PREFIX = f"{PREFIX}SECRET_"
"""Variables that hold the named secrets of manifests."""


def named_secrets(folder: Path | None) -> Secrets:
    """The secrets of this process: files of a folder, and `PENSTOCK_SECRET_*` variables."""
    return Secrets(folder, SECRET_PREFIX)


class SettingsError(BadRequestError):
    """A `PENSTOCK_*` variable that is unknown or has a bad value."""

    code = "invalid_settings"


class Settings(BaseSettings):
    """Base of all settings: frozen, from the environment alone."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    @classmethod
    def load(cls) -> Self:
        """Reads the settings of this process.

        Raises:
            SettingsError: Naming the variable at fault.
        """
        known = {
            f"{PREFIX}{name}".upper()
            for part in (ControllerSettings, GatewaySettings, HostSettings, LauncherSettings,
                         ClientSettings, UpSettings)
            for name in part.model_fields
        }  # fmt: skip
        for variable in os.environ:
            is_secret = variable.startswith(SECRET_PREFIX)
            if variable.startswith(PREFIX) and variable not in known and not is_secret:
                raise SettingsError(
                    f"{variable} is not a setting of Penstock",
                    param=variable,
                    hint="see docs/reference/settings.md for the names",
                )
        try:
            return cls()
        except ValidationError as exc:
            fault = faults_of(exc)[0]
            variable = PREFIX + fault.field.replace(".", "_").upper()
            raise SettingsError(f"{variable}: {fault.reason}", param=variable) from exc


class ControllerSettings(Settings):
    """The controller's process."""

    database_url: str = "sqlite+aiosqlite:///penstock.db"
    """SQLAlchemy URL of the registry; SQLite by default, PostgreSQL in production."""
    controller_host: str = "127.0.0.1"
    """Address at which the controller listens."""
    controller_port: int = Field(default=8100, ge=0, le=65535)
    """Port at which the controller listens."""
    internal_token: SecretStr
    """Token that gateways and hosts show to the controller."""
    leader_lease_s: float | None = Field(default=None, ge=1, le=60)
    """Several controllers share the database: one leads, for as long as it renews a lease of this
    many seconds, the others stand by. By default this controller is the only one."""
    controller_advertise_url: str | None = Field(default=None, pattern=r"^https?://[^,\s]+$")
    """Base URL at which gateways and hosts reach this very controller, where there are several; by
    default from its address and port."""
    ray_dashboard_url: str | None = None
    """Base URL of Ray's dashboard, whose REST scales the pools; none: hosts come by themselves."""
    ray_token_path: Path | None = None
    """File with Ray's bearer token."""
    pools: dict[str, int] = Field(default_factory=lambda: {"cpu": 2})
    """The pools of this platform and the number of hosts each may have, as JSON."""
    pools_min: dict[str, int] = Field(default_factory=dict)
    """Pools that grow and shrink with what models want, and the hosts that they keep, as JSON; one
    that is not named here keeps as many as PENSTOCK_POOLS says."""
    spare_hosts: int = Field(default=1, ge=0, le=1000)
    """Free hosts that such a pool keeps beside those that work, while any works."""
    host_idle_s: float = Field(default=600.0, gt=0)
    """An idle host of such a pool goes after this time; sooner where its price makes that cheaper
    than to have it back when it is wanted again."""
    node_start_s: float = Field(default=120.0, gt=0)
    """How long a host takes to come, until it was measured."""
    wait_price_per_hour: float = Field(default=60.0, ge=0)
    """What it is worth that nobody waits for a host, in US dollars for an hour of waiting."""
    secrets_dir: Path | None = None
    """Folder whose files are the secrets that manifests name, as for hosts: sources are asked what
    they are at the deploy."""
    inspect_sources: bool = True
    """Ask a source at its deploy: pins it, and tells at once what would fail later. Off where the
    controller has no way there; hosts then fetch what is named, pinned or not."""
    allow_pickle: bool = False
    """Let manifests take pickled weights: loading them may run code."""
    allow_remote_code: bool = False
    """Let manifests run the Python files of a model's authors (trust_remote_code)."""
    require_archive_sha256: bool = False
    """Refuse https:// archives without weights.sha256."""
    manifests_dir: Path | None = None
    """Folder of manifests that are deployed by themselves; one taken out stays deployed."""
    profiles_dir: Path | None = None
    """Folder of the profiles that `penstock tune` measured: what an engine can do, before it has
    run here; none: formulas alone."""
    capacity: dict[str, Capacity] = Field(default_factory=dict)
    """How the machines of pools are rented, as JSON: on-demand, reserved or spot; on-demand where
    it is not said."""
    host_timeout_s: float = Field(default=4.0, gt=0)
    """A host that has not reported for this long is lost."""
    unknown_usage: Literal["bill", "forgive"] = "forgive"
    """Of a request whose gateway died when its answer may have begun to leave, nobody knows what
    the tenant got: bill what the engines made of it (of a server that others run, the prompt), or
    nothing."""
    usage_retention_days: float = Field(default=400.0, gt=0)
    """How long the rows of single requests are kept; the sums of each hour stay."""
    start_timeout_s: float = Field(default=180.0, gt=0)
    """An engine that is not ready after this long is stopped and counts as failed."""
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP/HTTP) that each cold start is told to; by
    default OTEL_EXPORTER_OTLP_ENDPOINT, and none where that is not set either."""


class GatewaySettings(Settings):
    """A gateway's process."""

    gateway_host: str = "127.0.0.1"
    """Address at which the gateway listens."""
    gateway_port: int = Field(default=8000, ge=0, le=65535)
    """Port at which the gateway listens."""
    controller_url: str = "http://127.0.0.1:8100"
    """Base URL of the controller; of several with commas between, or one name for all of them."""
    internal_token: SecretStr
    """Token that the gateway shows to the controller."""
    gateway_state_dir: Path = Path(".penstock/gateway")
    """Folder for the last routing table (mode 0600)."""
    max_body_mib: float = Field(default=8.0, gt=0)
    """Largest body of a text request."""
    max_media_body_mib: float = Field(default=32.0, gt=0)
    """Largest body of a request with images, sounds or videos in it."""
    bodies_mib: float = Field(default=384.0, gt=0)
    """Bodies over 64 KiB of all requests that wait or run; one that finds no room is answered 503.
    No organisation has more than half of it. While a body is sent to an engine it is there twice:
    give the process twice as much and 200 MiB."""
    media_domains: list[str] = []
    """Hosts of which a prompt may name images, sounds and videos by URL, as JSON; private
    addresses never."""
    deadline_s: float = Field(default=120.0, gt=0)
    """A request that has waited this long for an engine is answered 503."""
    slow_client_timeout_s: float = Field(default=30.0, gt=0)
    """A tenant who does not read its stream for this long is cut off."""
    max_queued: int = Field(default=1000, ge=1)
    """Requests that may wait for one model; more are answered 429."""
    max_queued_tokens: int = Field(default=4_000_000, ge=1)
    """Tokens, prompts and expected outputs, of the requests that may wait for one model."""
    prefill_tokens: int = Field(default=8192, ge=1)
    """Prompt tokens that an engine may hold without a first byte; what exceeds them waits in the
    gateway, where the order is fair. One request always passes."""
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP/HTTP) that sampled requests are told to; by
    default OTEL_EXPORTER_OTLP_ENDPOINT, and none where that is not set either."""
    trace_share: float = Field(default=0.01, ge=0, le=1)
    """Share of requests that are sampled where their tenant's `traceparent` does not say it."""
    metrics_by_tenant: bool = False
    """Count requests and tokens by organisation too, the first 500 of them by name."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds that running streams get to end after SIGTERM."""
    unmetered: Literal["refuse", "serve"] = "refuse"
    """What becomes of requests while usage cannot be recorded, as on a full disk: answered 503, or
    served and not billed."""
    redis_url: SecretStr | None = None
    """Redis that gateways count limits in, as `redis://host:6379/0`; none: the controller hands
    each gateway a share of each limit."""
    on_limit_store_down: Literal["allow", "deny"] = "allow"
    """What becomes of requests with limits while nobody can say what is used of them: served
    within the limits of this gateway alone, or answered 503."""
    admin_api: bool = True
    """Pass `/admin/v1` on to the controller, so that operators need one URL only."""


class HostSettings(Settings):
    """A host: one replica of a pool's Ray Serve deployment."""

    controller_url: str = "http://127.0.0.1:8100"
    """Base URL of the controller; of several with commas between, or one name for all of them."""
    internal_token: SecretStr
    """Token that the host shows to the controller."""
    launcher_socket: Path
    """Unix socket of this node's launcher."""
    build_sockets: dict[str, Path] = Field(default_factory=dict)
    """Unix sockets of the launchers of further engine builds, by the build's name, as JSON."""
    cache_dir: Path = Path(".penstock/cache")
    """Node cache for fetched weights; the same path on every node."""
    cache_gib: float | None = Field(default=None, gt=0)
    """What the node cache may hold, in GiB; by default what its disk does."""
    secrets_dir: Path | None = None
    """Folder whose files are the secrets that manifests name, as `${secret:NAME}`; else they are
    `PENSTOCK_SECRET_NAME` variables."""
    log_dir: Path = Path(".penstock/logs")
    """Folder for the engines' logs."""
    engine_address: str = "127.0.0.1"
    """Address at which this node's engines listen."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds that running requests get to end before an engine is stopped."""

    @property
    def cache_bytes(self) -> int | None:
        """`cache_gib` in bytes."""
        return None if self.cache_gib is None else int(self.cache_gib * 2**30)


class LauncherSettings(Settings):
    """The launcher of one node."""

    launcher_socket: Path
    """Unix socket at which the launcher listens."""
    standby: int = Field(default=0, ge=0, le=16)
    """Processes that have imported all and wait to become engines where a fork cannot serve."""
    plain_spawn: bool = False
    """Start all engines by vLLM's public entry point, executed anew, as it is done for a vLLM that
    the platform does not know: slower, and nothing of vLLM's inner API is used."""


class ClientSettings(Settings):
    """The command line, and any other caller."""

    url: str = "http://127.0.0.1:8000"
    """Base URL of the platform."""
    api_key: SecretStr | None = None
    """The tenant's key."""
    admin_key: SecretStr | None = None
    """The operator's key."""
    profiles_dir: Path | None = None
    """Folder of the profiles that `penstock tune` measured; by default `profiles` in the data
    directory. Plans and simulations read them before formulas."""


class UpSettings(Settings):
    """`penstock up`."""

    data_dir: Path = Path(".penstock")
    """Folder that a platform on one machine keeps everything in."""
    api_key: SecretStr | None = None
    """The first tenant's key; made and printed once if not given."""
    admin_key: SecretStr | None = None
    """The operator's key; made and printed once if not given."""
    builds: dict[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$")], Path] = (
        Field(default_factory=dict)
    )
    """Python interpreters of further engine builds, by the name that `engine.build` of a manifest
    has, as JSON; each needs Penstock and its vLLM installed and gets a launcher of its own."""

"""The chart's values: their names, types, defaults and meaning, once.

`scripts/chart.py` writes `values.yaml` and `values.schema.json` from this. What one value alone
decides is refused by the schema; what contradicts another value, by `templates/checks/values.yaml`.

Past 300 lines, because it is one table, which stands in the order of `values.yaml`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import Manifest
from serving.settings import ControllerSettings, GatewaySettings, HostSettings, Settings

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=0, le=86_400)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|Mi|Gi|Ti|M|G|T)?$")]
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
SecretName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Shape = Annotated[str, Field(pattern=r"^(cpu|[a-z0-9-]+x[1-9][0-9]*)$")]
Labels = dict[str, str]


def other_settings(part: type[Settings], by_chart: str) -> object:
    """The type of a mapping of a process's settings to values, but those that the chart sets."""
    names = sorted(part.model_fields.keys() - set(by_chart.split()))
    return dict[Literal[tuple(names)], str | int | float | bool]


GATEWAY = other_settings(
    GatewaySettings,
    "gateway_host gateway_port controller_url internal_token gateway_state_dir max_body_mib "
    "deadline_s max_queued drain_timeout_s redis_url admin_api",
)
CONTROLLER = other_settings(
    ControllerSettings,
    "database_url controller_host controller_port internal_token ray_dashboard_url ray_token_path "
    "pools pools_min manifests_dir secrets_dir host_timeout_s start_timeout_s leader_lease_s "
    "controller_advertise_url",
)
HOST = other_settings(
    HostSettings,
    "controller_url internal_token launcher_socket build_sockets cache_dir secrets_dir log_dir "
    "engine_address drain_timeout_s",
)


class Part(BaseModel):
    """Base of all: unknown values are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Image(Part):
    repository: str
    """Repository, with its registry."""
    tag: str = ""
    """Tag; by default the chart's appVersion."""
    digest: Digest = ""
    """Digest; goes before the tag."""
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet pulls it."""


class Images(Part):
    platform: Image = Image(repository="ghcr.io/penstock/penstock")
    """Gateway, controller, Ray's head: no vLLM, no CUDA."""
    engine: Image = Image(repository="ghcr.io/penstock/penstock-engine")
    """Ray's workers on GPUs: vLLM for both architectures."""
    engineCpu: Image = Image(repository="ghcr.io/penstock/penstock-engine-cpu")
    """Ray's workers of pool `cpu`."""
    postgres: Image = Image(repository="docker.io/library/postgres", tag="16-alpine")
    """The trial database."""
    pullSecrets: list[SecretName] = []
    """Secrets with the registry's credentials."""


class Secrets(Part):
    internal: SecretName = "penstock-internal"
    """Secret with key `token`: what gateways, hosts and controller show each other."""
    keys: SecretName = "penstock-keys"
    """Secret with keys `admin-key` and `api-key`: the first operator's and the first tenant's."""
    ray: SecretName = "penstock-ray"
    """Secret with key `auth_token`: Ray's own token."""
    huggingFace: SecretName = ""
    """Secret with key `token` for weights on Hugging Face; empty for none."""
    sources: SecretName = ""
    """Secret whose keys are what manifests name as secrets of their sources; empty for none."""


class Resources(Part):
    cpu: Quantity
    """Requested cores."""
    memory: Quantity
    """Requested memory, which is also the limit."""


class Autoscaling(Part):
    enabled: bool = False
    """Make a HorizontalPodAutoscaler; without it there are `replicas` gateways."""
    minReplicas: Annotated[int, Field(ge=1)] = 2
    """Fewest gateways."""
    maxReplicas: Annotated[int, Field(ge=1)] = 10
    """Most gateways."""
    inFlightPerReplica: Annotated[int, Field(ge=1)] = 400
    """Streams for each gateway; needs the custom metrics API (see docs/operations)."""
    cpuPercent: Annotated[int, Field(ge=1, le=100)] = 70
    """CPU of the request at which it scales in any case."""


class Gateway(Part):
    replicas: Annotated[int, Field(ge=1)] = 2
    """Gateways, where nothing scales them."""
    autoscaling: Autoscaling = Autoscaling()
    """Gateways by the streams that run."""
    port: Port = 8000
    """Port of the tenants' endpoint."""
    servicePort: Port = 80
    """Port of its Service."""
    resources: Resources = Resources(cpu="1", memory="1Gi")
    """One process that uses one core; more streams need more gateways."""
    journal: Quantity = "1Gi"
    """Volume of each gateway for its journal and its last routing table."""
    storageClassName: str = ""
    """Storage class of that volume; empty for the cluster's default."""
    maxBodyMib: Annotated[float, Field(gt=0)] = 8
    """Largest body of a request."""
    maxQueued: Annotated[int, Field(ge=1)] = 1000
    """Requests that may wait for one model."""
    deadlineS: Seconds = 120
    """Longest wait for an engine."""
    longestStreamS: Seconds = 600
    """The longest answer that a drain, an ingress and an update wait for."""
    preStopS: Seconds = 10
    """Pause before the drain, until load balancers have seen that the pod leaves."""
    adminApi: bool = True
    """Pass `/admin/v1` on to the controller."""
    minAvailable: Annotated[int, Field(ge=0)] = 1
    """Gateways that a voluntary disruption leaves."""
    nodeSelector: Labels = {}
    """Where gateways may run."""
    redisSecret: SecretName = ""
    """Secret with key `url`: Redis that counts limits for all gateways together."""
    settings: GATEWAY = {}
    """Other settings (docs/reference/settings.md) without their prefix, in lower case."""


class Controller(Part):
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """One leads, the others stand by and take over; more than one needs PostgreSQL. While none
    leads, gateways serve on with their last table."""
    leaderLeaseS: Annotated[float, Field(ge=1, le=60)] = 3
    """Of several: one that has not renewed its lease for this long leads no longer."""
    port: Port = 8100
    """Port of the admin and internal API."""
    resources: Resources = Resources(cpu="500m", memory="1Gi")
    """One process."""
    sqliteVolume: Quantity = "2Gi"
    """Volume for SQLite, where neither an external nor a trial database is set."""
    storageClassName: str = ""
    """Storage class of that volume; empty for the cluster's default."""
    startTimeoutS: Annotated[int, Field(ge=1)] = 600
    """An engine that is not ready after this long counts as failed: large weights take minutes."""
    hostTimeoutS: Annotated[float, Field(gt=0)] = 10
    """A host that has not reported for this long is lost."""
    nodeSelector: Labels = {}
    """Where the controller may run."""
    settings: CONTROLLER = {}
    """Other settings (docs/reference/settings.md) without their prefix, in lower case."""


class External(Part):
    secretName: SecretName = ""
    """Secret with the URL of PostgreSQL, as postgresql+asyncpg://user:password@server/penstock."""
    secretKey: str = "url"
    """Key in that Secret."""


class Trial(Part):
    enabled: bool = False
    """Run a small PostgreSQL beside the platform. For trials: one pod, no backups."""
    secretName: SecretName = "penstock-trial-database"
    """Secret with keys `password` and `url`."""
    storage: Quantity = "5Gi"
    """Its volume."""
    storageClassName: str = ""
    """Storage class of that volume; empty for the cluster's default."""


class Database(Part):
    external: External = External()
    """PostgreSQL that somebody runs well."""
    trial: Trial = Trial()
    """A database to try the chart with."""


class Redis(Part):
    address: str = ""
    """host:port of Redis for the head's state; without it all hosts restart with the head."""
    passwordSecret: SecretName = ""
    """Secret with key `password`."""


class Head(Part):
    resources: Resources = Resources(cpu="2", memory="6Gi")
    """Ray's head runs Serve's controller and the dashboard, and no host."""
    nodeSelector: Labels = {}
    """Where it may run."""


class Toleration(Part):
    key: str
    """Taint's key."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """How the value is compared."""
    value: str = ""
    """Taint's value, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"
    """Taint's effect."""


class Cache(Part):
    kind: Literal["emptyDir", "hostPath", "ephemeral"] = "emptyDir"
    """Node cache for weights and compiled kernels: gone with the pod, the node's NVMe, or a volume
    of a storage class."""
    size: Quantity = "100Gi"
    """Its size; a host path has none."""
    hostPath: Annotated[str, Field(pattern=r"^(/[^:]*)?$")] = ""
    """Folder on the node, writable for uid 10001."""
    storageClassName: str = ""
    """Of an ephemeral volume."""


class Rdma(Part):
    resource: str = ""
    """Resource that the RDMA device plugin offers, as rdma/hca_shared_devices_a; empty for none."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many of it a pod gets."""
    environment: Labels = {}
    """NCCL's variables, as NCCL_IB_HCA."""


class ComputeDomain(Part):
    enabled: bool = False
    """Make a ComputeDomain for the group (multi-node NVLink through NVIDIA's DRA driver)."""
    nodes: Annotated[int, Field(ge=0)] = 0
    """Its numNodes; 0 lets the driver follow the pods."""


class WorkerGroup(Part):
    name: DnsName
    """Name of the group in the RayCluster."""
    pool: Shape
    """Shape of its hosts: `cpu`, `h200x8`, `gb200x4`, ... what manifests ask for by accelerator and
    gpus."""
    pods: Annotated[int, Field(ge=0)] = 1
    """Pods that run, or where `minPods` is set, that run at most."""
    minPods: Annotated[int, Field(ge=0)] | None = None
    """Pods at least: Ray's autoscaler and the controller then add and remove pods by demand."""
    gpusPerNode: Annotated[int, Field(ge=0, le=16)] = 0
    """Accelerators of one node of this group."""
    gpusPerPod: Annotated[int, Field(ge=0, le=16)] = 0
    """Accelerators of one pod. Equal to the shape's, one pod is one host."""
    hostsPerPod: Annotated[int, Field(ge=1)] = 1
    """Hosts of a pod of pool `cpu`."""
    singleProcessOomKill: bool = False
    """The nodes' kubelets are configured with singleProcessOOMKill (Kubernetes 1.32 and newer).
    Else an engine over its memory takes its whole pod along, so that a pod may hold one host."""
    architecture: Literal["amd64", "arm64"] = "amd64"
    """Of the nodes."""
    image: Literal["engine", "engineCpu"] = "engine"
    """Which of the images."""
    resources: Resources
    """Of one pod, engines included."""
    gpuResource: str = "nvidia.com/gpu"
    """Name under which the device plugin offers accelerators."""
    sharedMemory: Quantity = "16Gi"
    """Size of /dev/shm; counts as memory of the pod."""
    cache: Cache = Cache()
    """The node cache."""
    rdma: Rdma = Rdma()
    """InfiniBand or RoCE."""
    computeDomain: ComputeDomain = ComputeDomain()
    """GB200 NVL72: NVLink over the trays of a rack."""
    beyondRestricted: bool = False
    """Accept that this group's pods break the `restricted` Pod Security Standard: a host path, and
    IPC_LOCK with RDMA, do."""
    runtimeClassName: str = ""
    """Runtime class for GPUs, as `nvidia`, where the nodes need one."""
    nodeSelector: Labels = {}
    """Where its pods may run, beyond the architecture."""
    tolerations: list[Toleration] = []
    """Taints that its pods stand."""
    drainTimeoutS: Seconds = 600
    """Seconds that an engine's requests get to end before it is stopped."""
    settings: HOST = {}
    """Other settings (docs/reference/settings.md) without their prefix, in lower case."""


class Ray(Part):
    version: str = "2.60.0"
    """Ray's version in the images."""
    head: Head = Head()
    """The head."""
    redis: Redis = Redis()
    """Fault tolerance of the head."""
    workerGroups: list[WorkerGroup] = [
        WorkerGroup(name="cpu", pool="cpu", image="engineCpu", hostsPerPod=1, sharedMemory="1Gi",
                    resources=Resources(cpu="2", memory="8Gi"), cache=Cache(size="20Gi"),
                    drainTimeoutS=60)
    ]  # fmt: skip
    """Groups of equal nodes; each pool has exactly one."""


class Ingress(Part):
    enabled: bool = False
    """Make an Ingress."""
    className: str = ""
    """Its class."""
    host: str = ""
    """Host name of the endpoint."""
    tlsSecret: SecretName = ""
    """Secret with its certificate."""
    annotations: Labels = {}
    """More annotations; those for streaming with nginx are set already."""


class GatewayApi(Part):
    enabled: bool = False
    """Make an HTTPRoute."""
    parentName: str = ""
    """Name of the Gateway that it belongs to."""
    parentNamespace: str = ""
    """Namespace of that Gateway; empty for the release's."""
    host: str = ""
    """Host name of the endpoint."""


class Destination(Part):
    cidr: str
    """Addresses, as 10.0.0.0/8."""
    port: Port
    """Port there."""


class NetworkPolicies(Part):
    enabled: bool = True
    """Make NetworkPolicies: nothing talks to anything that it need not."""
    tenants: list[Labels] = []
    """Labels of namespaces that may call the gateways; none: everybody may."""
    monitoringNamespace: Labels = {"kubernetes.io/metadata.name": "monitoring"}
    """Labels of the namespace that may scrape metrics."""
    weightsFromInternet: bool = True
    """Engines' pods may reach port 443 anywhere, to fetch weights."""
    weightsFrom: list[Destination] = []
    """Where else engines' pods may fetch weights, as an object store within."""


class Rules(Part):
    enabled: bool = False
    """Make the PrometheusRule."""


class Monitoring(Part):
    serviceMonitor: bool = False
    """Make a ServiceMonitor for the controller, whose /metrics holds engines' metrics too."""
    podMonitor: bool = False
    """Make a PodMonitor for the gateways."""
    interval: str = "15s"
    """How often they are scraped."""
    labels: Labels = {}
    """Labels by which the Prometheus operator finds all of these."""
    rules: Rules = Rules()
    """Alerts; each has a runbook in docs/operations/runbooks."""
    dashboards: bool = False
    """Make ConfigMaps with Grafana's dashboards, found by the label grafana_dashboard."""


class Checks(Part):
    preInstall: bool = True
    """Check Secrets and the database in a Job before an install or upgrade."""
    testModel: str = ""
    """Model that `helm test` asks; empty to list models only."""


class Values(Part):
    nameOverride: str = ""
    """Name in place of the release's."""
    airGapped: bool = False
    """No pod may need the internet: no weights from hf://, images from your own registry."""
    images: Images = Images()
    """What runs."""
    secrets: Secrets = Secrets()
    """Secrets that exist already; the chart makes none."""
    gateway: Gateway = Gateway()
    """Answers tenants."""
    controller: Controller = Controller()
    """Keeps the registry and binds engines to hosts."""
    database: Database = Database()
    """Where the registry is: SQLite on a volume, unless one of these is set."""
    ray: Ray = Ray()
    """The machines, through KubeRay."""
    models: list[Manifest] = []
    """Manifests (docs/reference/manifest.md). The controller watches their ConfigMap; one that is
    taken out stays deployed until `penstock delete`."""
    ingress: Ingress = Ingress()
    """The endpoint through an Ingress."""
    gatewayApi: GatewayApi = GatewayApi()
    """The endpoint through the Gateway API."""
    networkPolicies: NetworkPolicies = NetworkPolicies()
    """Who may talk to whom."""
    monitoring: Monitoring = Monitoring()
    """Prometheus and Grafana."""
    checks: Checks = Checks()
    """Before an install and after it."""

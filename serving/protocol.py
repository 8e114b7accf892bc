"""What gateway, controller and hosts say to each other: the messages of `/internal/v1`.

Every message ignores fields it does not know, so that two neighbouring versions can talk.
Times are Unix seconds unless a name says otherwise; a duration ends in `_s`.

    gateway ⇄ controller   GET  routes?after=V         long poll -> RoutesDelta
                           GET  identities?after=V     long poll -> IdentitiesDelta
                           POST demand                 DemandReport -> DemandReply
    host ⇄ controller      POST hosts/register         HostRegistration -> HostAdmission
                           GET  hosts/{id}/assignment?after=V&prefetch=ID   long poll -> Assignment
                           POST hosts/{id}/report      HostReport -> HostAdmission

A long poll answers at once if the caller's version is not the current one, else when something
changes or after POLL_S with an unchanged version. Versions only grow, over restarts too.

Each conversation's messages stand in a module of their own; the parts import all of them from here.
"""

from serving.demand import DemandReply as DemandReply
from serving.demand import DemandReport as DemandReport
from serving.demand import FirstToken as FirstToken
from serving.demand import ModelDemand as ModelDemand
from serving.demand import QuarantinedRequest as QuarantinedRequest
from serving.demand import RevisionCounts as RevisionCounts
from serving.demand import bucket_end_s as bucket_end_s
from serving.demand import bucket_of as bucket_of
from serving.hosts import AdapterReport as AdapterReport
from serving.hosts import Assignment as Assignment
from serving.hosts import EngineAssignment as EngineAssignment
from serving.hosts import EngineLoadReport as EngineLoadReport
from serving.hosts import EnginePhase as EnginePhase
from serving.hosts import EngineReport as EngineReport
from serving.hosts import FetchReport as FetchReport
from serving.hosts import GangPlace as GangPlace
from serving.hosts import GpuReport as GpuReport
from serving.hosts import HostAdmission as HostAdmission
from serving.hosts import HostRegistration as HostRegistration
from serving.hosts import HostReport as HostReport
from serving.hosts import PhaseMark as PhaseMark
from serving.hosts import SaidManifest as SaidManifest
from serving.hosts import StartPhase as StartPhase
from serving.identities import IdentitiesDelta as IdentitiesDelta
from serving.identities import KeyRecord as KeyRecord
from serving.identities import Role as Role
from serving.messages import Message as Message
from serving.routes import AdapterRoute as AdapterRoute
from serving.routes import CanaryRoute as CanaryRoute
from serving.routes import EndpointRoute as EndpointRoute
from serving.routes import ModelRoute as ModelRoute
from serving.routes import ModelState as ModelState
from serving.routes import RoutesDelta as RoutesDelta

POLL_S = 20.0
"""A long poll is answered after this time even if nothing changed."""

DEMAND_INTERVAL_S = 0.25
"""Gateways report demand this often, and at once for a model with no ready endpoint."""

REPORT_INTERVAL_S = 1.0
"""Hosts report this often, and at once when their engine changes."""

"""The service's parts, put together: who is given what, and nothing of how they run."""

from __future__ import annotations

from typing import Protocol

from k3s_daas.requests import policy as request_policy
from k3s_daas_master import nsm
from k3s_daas_master.attester import Attester, RegistersMaster
from k3s_daas_master.certificates import Certificates
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.config import Config
from k3s_daas_master.connections import Connections
from k3s_daas_master.cut import CutRequest
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.doubts import Doubts
from k3s_daas_master.drain import Drainer
from k3s_daas_master.drains import DrainWatch
from k3s_daas_master.executor import Executor
from k3s_daas_master.fence import Fence, SeesMasters
from k3s_daas_master.fleet import Fleet, WritesRegistry
from k3s_daas_master.follower import Follower, FollowsChain, ReadsRegistry
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch, ReadsBalance
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.nodelist import NodeList
from k3s_daas_master.nodepasswords import NodePasswordKeeper, load_key
from k3s_daas_master.nodewatch import NodeWatch
from k3s_daas_master.operators import Operators, ReadsCap
from k3s_daas_master.owner_api import OwnerApi
from k3s_daas_master.policy import Policy, Proposes
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.readytime import ReadyTime, ReportsReady
from k3s_daas_master.registration import ClusterCa, Registrar
from k3s_daas_master.removal import ReadsWorkers, Remover
from k3s_daas_master.request_intake import RequestIntake
from k3s_daas_master.requests import Requests, ServesRequests
from k3s_daas_master.sealed.sealer import MovesAnchor, Sealer
from k3s_daas_master.signatures import Signatures
from k3s_daas_master.state import State
from k3s_daas_master.store import Store
from k3s_daas_master.tenant_cluster import TenantCluster
from k3s_daas_master.tenant_objects import Limits
from k3s_daas_master.tenants import Tenants
from k3s_daas_master.tokenreview import TokenReviewer
from k3s_daas_master.vitals import Vitals, WatchesChain

# How many refusals of one address are logged: a flood must not fill the journal.
_REFUSALS_BURST, _REFUSALS_PER_S = 20, 1.0
# Large answers that one address may ask for: its status pages ask every 3 s each.
_READS_BURST, _READS_PER_S = 60, 4.0
# Open connections of one address, of the service's 4,000: 1,000 workers behind one NAT have their place.
_CONNECTIONS_OF_ONE = 1500


class RegistryAccess(
    ReadsRegistry,
    ReadsWorkers,
    ReadsCap,
    WritesRegistry,
    ServesRequests,
    Proposes,
    ReportsReady,
    RegistersMaster,
    SeesMasters,
    Protocol,
):
    """All that the parts ask of the on-chain registry."""


class ChainAccess(FollowsChain, ReadsBalance, WatchesChain, Protocol):
    """All that the parts ask of the chain itself."""

    @property
    def chain_id(self) -> str: ...


def assemble(
    config: Config,
    *,
    chain: ChainAccess,
    registry: RegistryAccess,
    address: str,
    cluster: Cluster,
    store: Store,
    clock: Clock,
    module: nsm.SecurityModule | None = None,
    anchors: MovesAnchor | None = None,
) -> State:
    """The parts of a master with the wallet `address`, on one chain and one cluster, with the security module
    that it proves itself by, and the anchor of its sealed state. Raises StateError."""
    index, ca = TokenIndex(), ClusterCa()
    view = ChainView(clock, chain_may_lead=config.network == "localnet")
    passwords = NodePasswordKeeper(cluster, index, store, load_key(config.state_dir / "node-password.key"))
    signatures = Signatures(store, config.registry_id)
    certificates = Certificates(store)
    heartbeats = Heartbeats(
        index,
        store,
        clock,
        signatures,
        certificates,
        on_offence=lambda node_id, found: policy.find(node_id, found),
    )
    access = NodeAccess(index, certificates, lambda: fleet.nodes if fleet.looked else None, store.was_removed)
    node_list = NodeList(cluster, index)
    disruption = Disruption(index, heartbeats.last_ms, clock)
    cut = CutRequest(config.state_dir)
    remover = Remover(
        registry=registry,
        cluster=cluster,
        passwords=passwords,
        cut=cut,
        store=store,
        clock=clock,
        drain_timeout_s=config.drain_timeout_s,
    )

    tenants = Tenants(
        index=index,
        view=view,
        cluster=TenantCluster(cluster),
        clock=clock,
        limits=Limits(config.tenant_quota, {str(k): v for k, v in config.tenant_container.items()}),
        grace_ms=int(config.tenant_grace_s * 1000),
    )

    allowed = request_policy.Policy(config.request_methods, config.request_resources)
    requests = Requests(
        registry=registry,
        index=index,
        view=view,
        store=store,
        executor=Executor(OwnerApi(cluster.plain, config.request_timeout_s)),
        policy=allowed,
        address=address,
        clock=clock,
        keep_ms=int(config.request_results_keep_s * 1000),
        keep_bytes=config.request_results_max_mb * 1024 * 1024,
    )

    def on_change() -> None:
        remover.wake()
        requests.wake()
        fleet.wake()
        tenants.wake()

    follower = Follower(
        chain=chain,
        registry=registry,
        deployment=config.deployment,
        index=index,
        view=view,
        store=store,
        clock=clock,
        on_change=on_change,
        on_event=requests.note,
    )
    policy = Policy(
        mode=config.slashing,
        index=index,
        registry=registry,
        store=store,
        doubts=Doubts(index, view, follower, disruption),
        address=address,
        separate=config.network != "localnet",
        evidence_dir=config.state_dir / "evidence",
        clock=clock,
    )
    gas = GasWatch(chain, view, address, config.gas_low_mist, config.gas_reserve_mist, clock)
    fleet = Fleet(
        index=index,
        view=view,
        store=store,
        cluster=cluster,
        registry=registry,
        passwords=passwords,
        heartbeats=heartbeats,
        remover=remover,
        ca=ca,
        gas=gas,
        disruption=disruption,
        drains=DrainWatch(index, cluster, config.registry_id, clock),
        policy=policy,
        access=access,
        node_list=node_list,
        cut=cut,
        address=address,
        endpoint=config.endpoint,
        api_server=config.api_server,
        offline_after_ms=int(config.offline_after_s * 1000),
        clock=clock,
    )

    registrar = Registrar(
        index=index,
        view=view,
        store=store,
        cluster=cluster,
        passwords=passwords,
        node_list=node_list,
        ca=ca,
        signatures=signatures,
        api_server=config.api_server,
        bootstrap_ttl_ms=int(config.bootstrap_ttl_s * 1000),
        clock=clock,
    )
    operators = Operators(registry, config.operator_cap_id, clock)
    node_watch = NodeWatch(cluster, fleet.wake)
    metrics = Metrics()
    attester = Attester(
        module=module,
        required=config.tee_mode == "nitro" or module is not None,
        index=index,
        view=view,
        registry=registry,
        chain_id=chain.chain_id,
        deployment=config.deployment,
        address=address,
        config_hash=config.cluster_hash,
        ca=ca,
        key_file=config.state_dir / "attestation.key",
        clock=clock,
    )
    sealer = Sealer(
        anchors=anchors,
        index=index,
        view=view,
        attester=attester,
        address=address,
        state_dir=config.state_dir,
        interval_s=config.snapshot_interval_s,
        clock=clock,
    )
    state = State(
        config=config,
        index=index,
        view=view,
        store=store,
        ca=ca,
        follower=follower,
        fleet=fleet,
        tenants=tenants,
        cluster=cluster,
        remover=remover,
        node_watch=node_watch,
        registrar=registrar,
        drainer=Drainer(index=index, view=view, store=store, cluster=cluster, clock=clock),
        heartbeats=heartbeats,
        operators=operators,
        gas=gas,
        ready_time=ReadyTime(
            index=index,
            view=view,
            registry=registry,
            rows=store.ready_time,
            gas=gas,
            nodes=fleet.seen_nodes,
            address=address,
            report_ms=int(config.ready_report_s * 1000),
            clock=clock,
        ),
        disruption=disruption,
        policy=policy,
        reviewer=TokenReviewer(index, view, operators),
        access=access,
        limiter=RateLimiter(config.registration_burst, config.registration_per_s, clock),
        stranger_limiter=RateLimiter(config.unknown_token_burst, config.unknown_token_per_s, clock),
        refusal_log=RateLimiter(_REFUSALS_BURST, _REFUSALS_PER_S, clock),
        requests=requests,
        request_intake=RequestIntake(
            index=index, view=view, rows=store.requests, policy=allowed, clock=clock, on_body=requests.wake
        ),
        metrics=metrics,
        clock=clock,
        vitals=Vitals(chain, clock, lambda: metrics.checks().all, lambda: metrics.checks().refused),
        reads=RateLimiter(_READS_BURST, _READS_PER_S, clock),
        connections=Connections(_CONNECTIONS_OF_ONE),
        attester=attester,
        sealer=sealer,
        fence=Fence(sealer=sealer, attester=attester, registry=registry, state_dir=config.state_dir),
        attestations=RateLimiter(config.registration_burst, config.registration_per_s, clock),
    )
    state.metrics.watch(state)
    return state

"""Tenants: each owner with a live worker has a namespace, its limits and its rights; nobody else has any.

The chain's index says who is an owner. Rights go at once with the last worker; the namespace and what runs in
it stay for a grace time, so that an owner who stakes again in time loses nothing. That time is written on the
namespace itself: it survives this service, and everybody can see it. Nothing is made or taken away on a stale
view of the chain. A namespace that names another owner, or none, is never touched.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from lightkube.resources.core_v1 import Namespace

from k3s_daas import tenancy
from k3s_daas.logs import get_logger
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import ClusterError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.tenant_cluster import Found, TenantApi
from k3s_daas_master.tenant_objects import (
    ACCESS,
    KINDS,
    Limits,
    Wanted,
    access_name,
    holds,
    namespace,
    of_owner,
)

_log = get_logger("k3s_daas_master.tenants")

# Owners handled side by side: at the first start of a large fleet each needs eight requests.
_AT_ONCE = 8
_REST_S = 0.2

Key = tuple[str, str, str]


class ForeignNamespace(ClusterError):
    """The namespace that an owner should have belongs to somebody else."""


class Tenants:
    """Keeps the tenants' objects as the registry wants them; `problems` is by owner, "" for all of them."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        cluster: TenantApi,
        clock: Clock,
        limits: Limits | None = None,
        grace_ms: int,
    ) -> None:
        self._index = index
        self._view = view
        self._cluster = cluster
        self._clock = clock
        self._limits = limits or Limits()
        self._grace_ms = grace_ms
        self._wake = asyncio.Event()
        # owner → the nodes that it was last given; what a quick pass compares with.
        self._given: dict[str, tuple[str, ...]] = {}
        # What we applied and the version that led to: the same two again are right, whatever spelling the
        # server chose.
        self._applied: dict[Key, tuple[str, bytes]] = {}
        self.problems: dict[str, str] = {}
        self.passes = 0

    @property
    def count(self) -> int:
        """Owners that have their namespace."""
        return len(self._given)

    def wake(self) -> None:
        """Look for owners that came or left now."""
        self._wake.set()

    async def run(self, every_s: float) -> None:
        """Until cancelled: compare everything each `every_s` seconds; in between who came and who left."""
        compared: float | None = None
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            whole = compared is None or now - compared >= every_s
            if await self.reconcile(whole=whole) and whole:
                compared = now
            rest = min(_REST_S, every_s)
            await asyncio.sleep(rest)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), every_s - rest)

    async def reconcile(self, *, whole: bool = True) -> bool:
        """One pass; False when nothing was looked at, since the chain's view isn't fit to decide on.

        `whole` compares every object, so that what somebody deleted or changed is put right.
        """
        self.passes += 1
        if not self._may_act():
            return False
        try:
            found = await self._look() if whole else None
        except ClusterError as error:
            self._report("", str(error))
            return False
        self._report("", None)
        owners = self._owners()
        gate = asyncio.Semaphore(_AT_ONCE)
        if found is None:
            coming = [owner for owner, nodes in owners.items() if self._given.get(owner) != nodes]
            leaving = [owner for owner in self._given if owner not in owners]
        else:
            coming = list(owners)
            leaving = sorted(_owners_of(found) - set(owners))
        await asyncio.gather(
            *(self._try(gate, owner, owners[owner], found) for owner in coming),
            *(self._try(gate, owner, None, found) for owner in leaving),
        )
        for owner in set(self.problems) - {"", *owners, *leaving}:
            del self.problems[owner]
        return True

    def _may_act(self) -> bool:
        return self._index.loaded and self._index.settled and self._view.fresh()

    def _owners(self) -> dict[str, tuple[str, ...]]:
        """The names of the live workers of each owner."""
        nodes: dict[str, list[str]] = defaultdict(list)
        for worker in self._index.workers.values():
            if worker.live:
                nodes[worker.owner].append(worker.node_id)
        return {owner: tuple(sorted(names)) for owner, names in nodes.items()}

    async def _look(self) -> dict[Key, Found]:
        found: dict[Key, Found] = {}
        for kind in KINDS:
            found |= await self._cluster.managed(kind)
        return found

    async def _try(
        self,
        gate: asyncio.Semaphore,
        owner: str,
        nodes: tuple[str, ...] | None,
        found: Mapping[Key, Found] | None,
    ) -> None:
        """Settle one owner; what goes wrong with it is its problem and holds up no other."""
        async with gate:
            # Somebody may have been slashed, or the chain have gone dark, since this pass began.
            if not self._may_act() or self._index.owner_is_live(owner) != (nodes is not None):
                return
            try:
                if nodes is None:
                    await self._let_go(owner, found)
                else:
                    await self._settle(owner, nodes, found)
            except (ClusterError, tenancy.InvalidOwner) as error:
                self._report(owner, str(error))
            except Exception as error:
                _log.exception("tenant broke", owner=owner)
                self._report(owner, f"{type(error).__name__}: {error}")
            else:
                self._report(owner, None)

    async def _settle(self, owner: str, nodes: tuple[str, ...], found: Mapping[Key, Found] | None) -> None:
        """Have everything of this owner in place."""
        await self._check_home(owner, found)
        for wanted in of_owner(owner, nodes, self._limits):
            present = None if found is None else found.get(wanted.key)
            if present is not None and self._as_wanted(wanted, present):
                continue
            done = await self._cluster.apply(wanted)
            self._applied[wanted.key] = (done.version, _fingerprint(wanted))
            if found is not None and owner in self._given:
                _log.warning("tenant's object put right", owner=owner, kind=wanted.key[0], name=wanted.name)
        if owner not in self._given:
            _log.info("tenant in place", owner=owner, namespace=tenancy.tenant_namespace(owner))
        self._given[owner] = nodes

    def _as_wanted(self, wanted: Wanted, present: Found) -> bool:
        if wanted.kind is Namespace and tenancy.ANNOTATION_DELETE_AFTER in present.annotations:
            return False
        if holds(present.body, wanted.body):
            return True
        return self._applied.get(wanted.key) == (present.version, _fingerprint(wanted))

    async def _check_home(self, owner: str, found: Mapping[Key, Found] | None) -> Found | None:
        """The owner's namespace if it is there. ForeignNamespace, and ClusterError while it is ending."""
        name = tenancy.tenant_namespace(owner)
        home = None if found is None else found.get(("Namespace", "", name))
        # One without our label isn't in the list, and may be there all the same.
        home = home or await self._cluster.get(Namespace, name)
        if home is None:
            return None
        if home.annotations.get(tenancy.ANNOTATION_OWNER) != owner:
            named = home.annotations.get(tenancy.ANNOTATION_OWNER) or "nobody"
            raise ForeignNamespace(
                f"Found namespace {name} with owner {named}, wanted {owner}. It isn't touched: remove it, or "
                f"annotate it with {tenancy.ANNOTATION_OWNER}={owner} if it is this owner's."
            )
        if home.terminating:
            raise ClusterError(f"Namespace {name} is being deleted; it is made again once it is gone.")
        return home

    async def _let_go(self, owner: str, found: Mapping[Key, Found] | None) -> None:
        """Take the rights of an owner without live workers; after the grace time delete its namespace."""
        name = tenancy.tenant_namespace(owner)
        access = {
            "RoleBinding": ("k3s-daas:owner", name),
            "ClusterRoleBinding": (access_name(owner), None),
            "ClusterRole": (access_name(owner), None),
        }
        for kind in ACCESS:
            object_name, home_name = access[kind.__name__]
            if found is None or (kind.__name__, home_name or "", object_name) in found:
                await self._cluster.delete(kind, object_name, home_name)
        if self._given.pop(owner, None) is not None:
            _log.info("tenant lost its rights: no live worker", owner=owner)
        home = None if found is None else found.get(("Namespace", "", name))
        home = home or await self._cluster.get(Namespace, name)
        if home is None or home.terminating or home.annotations.get(tenancy.ANNOTATION_OWNER) != owner:
            return
        now_ms = self._view.now_ms()
        due_ms = _milliseconds(home.annotations.get(tenancy.ANNOTATION_DELETE_AFTER))
        if due_ms is None:
            due = _rfc3339(now_ms + self._grace_ms)
            await self._cluster.apply(namespace(owner, due))
            _log.info("tenant's namespace will be deleted", owner=owner, namespace=name, after=due)
        elif now_ms >= due_ms:
            await self._cluster.delete(Namespace, name)
            _log.info("tenant's namespace deleted", owner=owner, namespace=name)

    def _report(self, owner: str, problem: str | None) -> None:
        if problem is None:
            self.problems.pop(owner, None)
        elif self.problems.get(owner) != problem:
            self.problems[owner] = problem
            _log.error("tenant isn't as wanted", owner=owner, error=problem)


def _owners_of(found: Mapping[Key, Found]) -> set[str]:
    """The owners that are named by objects which no tenant can write."""
    kinds = {"Namespace", *(kind.__name__ for kind in ACCESS)}
    ours = (item for key, item in found.items() if key[0] in kinds)
    named = {item.annotations.get(tenancy.ANNOTATION_OWNER) for item in ours}
    return {owner for owner in named if owner is not None}


def _fingerprint(wanted: Wanted) -> bytes:
    return hashlib.sha256(json.dumps(wanted.body, sort_keys=True).encode()).digest()


def _rfc3339(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _milliseconds(text: str | None) -> int | None:
    """The time in an annotation; None for none, and for one that somebody spoilt: it then counts anew."""
    try:
        time = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if time.tzinfo is None else int(time.timestamp() * 1000)

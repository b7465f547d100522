# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The workers of a registry on-chain as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: sui_workers
short_description: The on-chain registry as an inventory
version_added: "0.1.0"
author:
  - K3s-DaaS authors (@k3s-daas)
description:
  - Reads a fleet's registry from the chain and makes a host of each worker, named by its node id, with
    groups by status, owner and reputation. Other groups and variables can be constructed of what the chain
    says.
  - Takes files whose name ends in C(sui_workers.yml) or C(sui_workers.yaml).
  - Who stakes chooses the name of a host here. So this plugin sets no connection variable from the registry,
    and a host that no earlier inventory source names is in C(sui_workers_chain_only), whose C(ansible_host)
    can't be resolved. Give addresses in another source, before this one.
  - Every worker has the variables C(sui_worker), its record, and C(sui_worker_read), where and when it was
    read. C(docs/inventory.md) lists what is in them. They are data, never templates.
requirements:
  - k3s-daas, installed for the Python of the control node
extends_documentation_fragment: [constructed, inventory_cache]
options:
  plugin:
    description: Says that this file is meant for this plugin.
    type: str
    required: true
    choices: [sui_workers]
  network:
    description: Which Sui network the endpoints serve. Plaintext endpoints are taken on V(localnet) only.
    type: str
    choices: [localnet, devnet, testnet, mainnet]
    required: true
    env:
      - name: SUI_WORKERS_NETWORK
  endpoints:
    description:
      - URLs of the network's gRPC endpoints; the next one is asked when one doesn't answer. V(mainnet) needs
        two, which have to agree. May be templates.
    type: list
    elements: str
    required: true
    env:
      - name: SUI_WORKERS_ENDPOINTS
  chain_id:
    description:
      - Digest of the network's first checkpoint (base58). Known for V(testnet) and V(mainnet). May be a
        template.
    type: str
    env:
      - name: SUI_WORKERS_CHAIN_ID
  timeout_s:
    description: Seconds one call may take.
    type: float
    default: 10.0
  name:
    description:
      - Name of the registry, looked up among those that the wallet in O(key_file) administers. Where there is
        none yet, there are no workers either. Instead of O(registry_id).
    type: str
    env:
      - name: SUI_WORKERS_NAME
  key_file:
    description: Path of a wallet's key, for O(name). Only its address is used. May be a template.
    type: path
    env:
      - name: SUI_WORKERS_KEY_FILE
  package_id:
    description: Id of the published package. May be a template.
    type: str
    env:
      - name: SUI_WORKERS_PACKAGE_ID
  original_package_id:
    description: Id of the package's first version, where it was upgraded since. May be a template.
    type: str
    env:
      - name: SUI_WORKERS_ORIGINAL_PACKAGE_ID
  registry_id:
    description: Id of the registry. May be a template.
    type: str
    env:
      - name: SUI_WORKERS_REGISTRY_ID
  owners:
    description: Take only workers of these owners, which are Sui addresses. All of them when empty.
    type: list
    elements: str
    default: []
    env:
      - name: SUI_WORKERS_OWNERS
  statuses:
    description: Take only workers with one of these statuses. All of them when empty.
    type: list
    elements: str
    choices: [pending, active, busy, offline, jailed, slashed, unbonding]
    default: []
  known_only:
    description: Take only workers that an earlier inventory source names.
    type: bool
    default: false
  reputation_bands:
    description:
      - Bands of reputation (0 to 100), each with the least that is in it. A worker is in the group
        C(sui_workers_reputation_BAND) of the highest band that it reaches.
    type: dict
    default: {low: 0, fair: 50, good: 80}
  owner_groups:
    description: Whether there is a group C(sui_workers_owner_ADDRESS) for each owner.
    type: bool
    default: true
notes:
  - With O(cache) a view is kept until it expires, or until a run with C(--flush-cache). What is on-chain of
    other registries, networks and chains is kept apart. The checkpoint at which it was read stays with it,
    and playbooks/slash.yml refuses a view that is older than C(contracts_inventory_max_age_s).
  - Ansible goes on without a source that can't be read, which leaves out hosts and groups. The project's
    ansible.cfg sets C(any_unparsed_is_failed), so that it ends there.
"""

EXAMPLES = r"""
# inventories/mine/sui_workers.yml, beside hosts.yml which has the addresses
plugin: sui_workers
network: testnet
endpoints: [https://fullnode.testnet.sui.io:443]
package_id: "0x70ac5c0bb01a4f0b6e0c4e31d5d5ca7e1a80a1ecf7e4c9d5a4f3d92c18fd3b0a"
registry_id: "0x1f5eb3a1c4cfe1f7d8c3f5f0b6a49a2f0f7f0d2e6d8f3a95b0c1d2e3f4a5b6c7"
owners: ["0x9b3c0d1e2f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c8d9ea"]
known_only: true

---
# By name; a file that names things by what the environment holds
plugin: sui_workers
network: localnet
endpoints: ["{{ lookup('ansible.builtin.env', 'SUI_ENDPOINT') }}"]
name: my-fleet
key_file: ~/.k3s-daas/operator.key

---
# With a cache of five minutes, groups of one's own, and addresses by a rule
plugin: sui_workers
network: mainnet
endpoints: [https://fullnode.mainnet.sui.io:443, https://sui.example.net:443]
package_id: "0x70ac5c0bb01a4f0b6e0c4e31d5d5ca7e1a80a1ecf7e4c9d5a4f3d92c18fd3b0a"
registry_id: "0x1f5eb3a1c4cfe1f7d8c3f5f0b6a49a2f0f7f0d2e6d8f3a95b0c1d2e3f4a5b6c7"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.k3s-daas/inventory
cache_timeout: 300
strict: true
compose:
  ansible_host: inventory_hostname ~ '.workers.internal'
  stake_sui: sui_worker.stake_mist / 1000000000
groups:
  understaked: sui_worker.stake_mist < sui_worker.required_stake_mist
  without_a_token: sui_worker.seal_token is none or sui_worker.seal_token.revoked
keyed_groups:
  - key: "'idle' if sui_worker.workload == 0 else 'at_work'"
    prefix: load
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from ansible.constants import LOCALHOST
from ansible.errors import AnsibleParserError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

try:
    from k3s_daas.chain import ChainError, Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.inventory import FleetView, Named, WorkerRecord, read_fleet
    from k3s_daas.registry import Deployment, WorkerStatus

    IMPORT_ERROR = None
except ImportError as error:  # pragma: no cover - seen only on a control node without the package
    IMPORT_ERROR = error

#: Reserved (RFC 6761): no resolver gives an address for it. From a constant, never from the registry.
NO_ADDRESS = "no-inventory-has-an-address-of-this-worker.invalid"
#: What O(name) and O(registry_id) need beside them, and both what may be a template.
_IDS = ("package_id", "original_package_id", "registry_id")
_TEMPLATES = ("endpoints", "chain_id", "key_file", *_IDS)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "sui_workers"

    def verify_file(self, path: str) -> bool:
        named = path.endswith(("sui_workers.yml", "sui_workers.yaml"))
        return named and bool(super().verify_file(path))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if IMPORT_ERROR is not None:
            raise AnsibleParserError(
                f"Found no k3s-daas for this Python ({IMPORT_ERROR}), wanted it beside Ansible, in the same "
                "virtual environment. Run make setup, or pip install it there."
            )
        asked = self._asked()
        try:
            owners = {normalize_address(owner) for owner in self.get_option("owners")}
        except ChainError as error:
            raise AnsibleParserError(f"An owner in owners can't be used: {error}") from None
        view, cached = self._view(path, asked, use_cache=cache)
        known = set(self.inventory.hosts)
        names = self._names(view, known, owners)
        self._want_one_registry(view, known.intersection(names))
        self._add(view, names, known, cached=cached)
        self._construct(names)

    # -- what is asked -------------------------------------------------------------------------------------

    def _asked(self) -> dict[str, Any]:
        """The options that say which registry, templates rendered."""
        self.templar.available_variables = self._vars
        asked = {name: self.get_option(name) for name in ("network", "timeout_s", "name")}
        for option in _TEMPLATES:
            asked[option] = self.templar.template(self.get_option(option)) or None
        by_id = [option for option in _IDS if asked[option]]
        if bool(asked["name"]) == bool(by_id):
            found = ", ".join((["name"] if asked["name"] else []) + by_id) or "none of them"
            raise AnsibleParserError(
                f"Found {found}; wanted either name and key_file, or package_id and registry_id. Correct the "
                "file."
            )
        needed = ("key_file",) if asked["name"] else ("package_id", "registry_id")
        missing = [option for option in needed if not asked[option]]
        if missing:
            raise AnsibleParserError(
                f"Found no {' and no '.join(missing)} beside {'name' if asked['name'] else by_id[0]}, wanted "
                "either name and key_file, or package_id and registry_id. Correct the file."
            )
        return asked

    def _view(self, path: str, asked: dict[str, Any], *, use_cache: bool) -> tuple[FleetView, bool]:
        """(the fleet, whether it comes out of the cache)."""
        if not self.get_option("cache"):
            return self._read(asked), False
        # What is asked is in the key: no other registry or network is answered with what is kept of this one.
        said = json.dumps({name: asked[name] for name in asked if name != "timeout_s"}, sort_keys=True)
        key = f"{self.get_cache_key(path)}_{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        if use_cache and (kept := self._cache.get(key)) is not None:
            try:
                return FleetView.load(kept, f"The cache's {key}"), True
            except ChainError as error:
                self.display.warning(f"{error} The registry is read from the chain instead.")
        view = self._read(asked)
        self._cache[key] = view.model_dump()
        return view, False

    def _read(self, asked: dict[str, Any]) -> FleetView:
        where: Deployment | Named
        try:
            if asked["name"]:
                where = Named(asked["name"], Key.load(asked["key_file"]))
            else:
                where = Deployment(asked["package_id"], asked["registry_id"], asked["original_package_id"])
            asking = read_fleet(
                asked["endpoints"] or [],
                asked["network"],
                where,
                asked["chain_id"],
                timeout_s=asked["timeout_s"],
            )
            view = asyncio.run(asking)
        except (ChainError, ValueError) as error:
            raise AnsibleParserError(f"The registry can't be read: {error}") from None
        if view.source is None:
            self.display.warning(
                f"Found no registry called {asked['name']!r} that the wallet {asked['key_file']} administers "
                f"on {asked['network']}: there are no workers. playbooks/contracts.yml creates it."
            )
        return view

    # -- what is made of it --------------------------------------------------------------------------------

    def _names(self, view: FleetView, known: set[str], owners: set[str]) -> list[str]:
        """The workers to take, sorted. A name that means something else to Ansible is left out: who stakes
        under it would set variables of a group, or stand for the control node."""
        groups = {self._sanitize_group_name(to_text(name)) for name in self.get_option("groups")}
        taken = {*self.inventory.groups, *groups, *LOCALHOST}
        statuses = set(self.get_option("statuses"))
        wanted = [
            name
            for name, worker in sorted(view.workers.items())
            if (not owners or worker.owner in owners)
            and (not statuses or worker.status in statuses)
            and (not self.get_option("known_only") or name in known)
        ]
        refused = [name for name in wanted if name in taken]
        if refused:
            shown = ", ".join(refused[:10]) + (f" and {len(refused) - 10} more" if refused[10:] else "")
            self.display.warning(
                f"Found workers called {shown}, wanted names that are no group's and not the control node's: "
                "they are left out. Rename the group, or say in owners whose workers to take."
            )
        return [name for name in wanted if name not in taken]

    def _want_one_registry(self, view: FleetView, names: Iterable[str]) -> None:
        for name in names:
            other = self.inventory.get_host(name).vars.get("sui_worker_read")
            if other and view.source and other["registry_id"] != view.source.registry_id:
                raise AnsibleParserError(
                    f"Found worker {name} in the registries {other['registry_id']} and "
                    f"{view.source.registry_id}, wanted each name in one. Give each registry an inventory of "
                    "its own."
                )

    def _add(self, view: FleetView, names: list[str], known: set[str], *, cached: bool) -> None:
        """Hosts, their variables, and the groups that are always there."""
        self.inventory.add_group("sui_workers")
        groups = {status.value: self._group(status.value) for status in WorkerStatus}
        chain_only = self._group("chain_only")
        self.inventory.set_variable(chain_only, "ansible_host", NO_ADDRESS)
        bands = self._bands()
        groups |= {f"reputation {band}": self._group(f"reputation_{band}") for _, band in bands}
        source = {} if view.source is None else wrap_var(view.source.model_dump() | {"cached": cached})
        for name in names:
            worker = view.workers[name]
            self.inventory.add_host(name, group=groups[worker.status])
            self.inventory.set_variable(name, "sui_worker", wrap_var(worker.model_dump()))
            self.inventory.set_variable(name, "sui_worker_read", source)
            if name not in known:
                self.inventory.add_child(chain_only, name)
            reached = [band for least, band in bands if worker.reputation >= least]
            if reached:
                self.inventory.add_child(groups[f"reputation {reached[-1]}"], name)
            if self.get_option("owner_groups"):
                self._add_to_owner(worker, groups)

    def _add_to_owner(self, worker: WorkerRecord, groups: dict[str, str]) -> None:
        if worker.owner not in groups:
            groups[worker.owner] = self._group(f"owner_{worker.owner}")
        self.inventory.add_child(groups[worker.owner], worker.node_id)

    def _group(self, suffix: str) -> str:
        group: str = self.inventory.add_group(f"sui_workers_{suffix}")
        self.inventory.add_child("sui_workers", group)
        return group

    def _bands(self) -> list[tuple[int, str]]:
        """(the least reputation, the band's name), from the lowest."""
        bands = []
        for name, least in self.get_option("reputation_bands").items():
            good = isinstance(least, int) and not isinstance(least, bool) and 0 <= least <= 100
            if not good or self._sanitize_group_name(f"_{name}") != f"_{name}":
                raise AnsibleParserError(
                    f"Found {name!r}: {least!r} in reputation_bands, wanted a name of letters, digits and "
                    "underscores, and the least reputation in it, 0 to 100. Correct the file."
                )
            bands.append((least, str(name)))
        return sorted(bands)

    def _construct(self, names: list[str]) -> None:
        """The file's own variables, then groups. One after the other for all hosts: once there are more
        groups, a host's name could be one of theirs, and a variable would be set there."""
        strict = self.get_option("strict")

        def variables(name: str) -> Any:
            return self.inventory.get_host(name).get_vars()

        for name in names if (compose := self.get_option("compose")) else ():
            self._set_composite_vars(compose, variables(name), name, strict)
        for name in names if (groups := self.get_option("groups")) else ():
            self._add_host_to_composed_groups(groups, variables(name), name, strict, fetch_hostvars=False)
        for name in names if (keys := self.get_option("keyed_groups")) else ():
            self._add_host_to_keyed_groups(keys, variables(name), name, strict, fetch_hostvars=False)

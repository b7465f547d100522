#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Read the registry and hold it, the cluster, the hosts and the inventory against each other."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_drift
short_description: Say where inventory, hosts, cluster and chain disagree
version_added: "0.1.0"
description:
  - Reads the registry, and compares it with what the hosts and the cluster said and with what the inventory
    wants. Sends nothing and changes nothing, but writes O(report).
  - Finds the registry by its ids, or by its name among those that the wallet in O(key_file) administers. A
    chain that gives no answer is no failure; it stands under C(not_asked), and the others are compared.
options:
  name:
    description: Name of the registry, looked up among those that the wallet administers.
    type: str
    required: true
  key_file:
    description: Path of the wallet's key. Only its address is used.
    type: path
    required: true
  package_id:
    description: With O(registry_id), instead of looking for O(name).
    type: str
  original_package_id:
    description: Id of the package's first version, where it was upgraded since.
    type: str
  registry_id:
    description: Id of the registry.
    type: str
  terms:
    description:
      - What the registry's terms are to be, with the options of M(sui_registry). Not compared when not given.
    type: dict
  master:
    description: Name of the master's host in the inventory.
    type: str
    required: true
  workers:
    description: The inventory's workers, by node id.
    type: list
    elements: str
    required: true
  endpoint:
    description: The URL that the master is to announce.
    type: str
    required: true
  api_server:
    description: The URL of the API server that the master is to announce.
    type: str
    required: true
  attested:
    description: Whether the master is to be attested.
    type: bool
    required: true
  k3s_version:
    description: The version of k3s that is to run; empty when a binary of any version is installed.
    type: str
    default: ""
  answers:
    description:
      - Of each host, C(host) and C(cluster) as M(k3s_daas_host_info) returned them, or null; and under
        C(not_asked) a list of why something could not be said.
    type: dict
    required: true
  changes:
    description: Tasks of the roles that would change something, with C(host), C(role), C(task), C(what).
    type: list
    elements: dict
    required: true
  report:
    description: File that gets the result as one line of JSON.
    type: path
extends_documentation_fragment: [k3s_daas]
attributes:
  check_mode:
    description: Only reads; writes O(report) all the same.
  diff_mode:
    support: none
    description: What differs is its result.
"""

EXAMPLES = r"""
- name: Compare
  k3s_daas_drift:
    name: my-cluster
    key_file: /root/wallets/operator.key
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    master: master
    workers: [worker-1]
    endpoint: https://10.0.0.11:8443
    api_server: https://10.0.0.11:6443
    attested: false
    answers: "{{ answers }}"
    changes: []
  register: drift
"""

RETURN = r"""
exit_code:
  description: 0 when all agree, 2 when some don't, 4 when all that answered agree.
  type: int
  returned: success
differences:
  description: Each with C(who), C(what), C(found), C(wanted), C(between) which sides, and C(fix).
  type: list
  elements: dict
  returned: success
not_asked:
  description: Each with C(who) and C(why).
  type: list
  elements: dict
  returned: success
table:
  description: The same for people.
  type: str
  returned: success
"""

import json
import tempfile
from pathlib import Path

from ansible.module_utils.k3s_daas_chain import Refused, connect, start

try:
    from k3s_daas.chain import ChainError, Key
    from k3s_daas.drift import Change, Cluster, Fleet, Host, NotAsked, OnChain, Seen, compare
    from k3s_daas.registry import Deployment, Registry, check_node_id, find_registry
    from k3s_daas.registry.settings import parse_wanted
except ImportError:
    pass  # start() reports it


async def read_chain(module):
    params = module.params
    async with await connect(module, with_key=False) as chain:
        wallet = Key.load(params["key_file"]).address
        if params["registry_id"]:
            original = params["original_package_id"] or None
            deployment = Deployment(params["package_id"], params["registry_id"], original)
        else:
            deployment = await find_registry(chain, wallet, params["name"])
        if deployment is None:
            raise Refused(f"no registry {params['name']!r} of {wallet}; run playbooks/contracts.yml")
        _, now_ms = await chain.latest_checkpoint()
        snapshot = await Registry(chain, deployment).snapshot()
    return OnChain(snapshot.config, snapshot.workers, snapshot.worker_tokens, wallet, now_ms)


def fleet_of(params):
    terms = parse_wanted(params["terms"] | {"name": params["name"]}) if params["terms"] else None
    return Fleet(
        params["master"],
        tuple(check_node_id(name) for name in params["workers"]),
        params["endpoint"],
        params["api_server"],
        params["attested"],
        params["k3s_version"],
        terms,
    )


def write(path, content):
    """Complete or not at all: whoever waits for it may look at any time."""
    path = Path(path)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def heard(kind, key, answers, not_asked):
    """What was said under `key`, by who said it; who said something else counts as not asked."""
    found = {}
    for who, answer in answers.items():
        if answer[key] is not None:
            try:
                found[who] = kind.model_validate(answer[key])
            except ValueError:
                not_asked.append(NotAsked(who, f"its answer ({key}) has another shape; run site.yml for it"))
    return found


async def work(module):
    params, chain = module.params, None
    fleet, answers = fleet_of(params), params["answers"]
    not_asked = [NotAsked(who, str(why)[:500]) for who in answers for why in answers[who]["not_asked"]]
    try:
        chain = await read_chain(module)
    except (ChainError, Refused) as error:
        not_asked.append(NotAsked("chain", str(error)))
    hosts = heard(Host, "host", answers, not_asked)
    cluster = heard(Cluster, "cluster", answers, not_asked).get(fleet.master)
    changes = tuple(Change.model_validate(one) for one in params["changes"])
    report = compare(fleet, Seen(chain, cluster, hosts, changes), tuple(not_asked))
    result = report.as_json()
    if params["report"]:
        try:
            write(params["report"], json.dumps(result | {"registry": params["name"]}) + "\n")
        except OSError as error:
            raise Refused(
                f"Can't write the report to {params['report']}: {error.strerror}. Name another file."
            ) from None
    return result | {"changed": False, "table": report.table()}


def main():
    spec = {
        "name": {"type": "str", "required": True},
        # The path of a key is no secret.
        "key_file": {"type": "path", "required": True, "no_log": False},
        "package_id": {"type": "str"},
        "original_package_id": {"type": "str"},
        "registry_id": {"type": "str"},
        "terms": {"type": "dict"},
        "master": {"type": "str", "required": True},
        "workers": {"type": "list", "elements": "str", "required": True},
        "endpoint": {"type": "str", "required": True},
        "api_server": {"type": "str", "required": True},
        "attested": {"type": "bool", "required": True},
        "k3s_version": {"type": "str", "default": ""},
        "answers": {"type": "dict", "required": True},
        "changes": {"type": "list", "elements": "dict", "required": True},
        "report": {"type": "path"},
    }
    start(work, spec, registry=False, key=False, required_together=[("package_id", "registry_id")])


if __name__ == "__main__":
    main()

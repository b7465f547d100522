#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Run, stop or replace an AWS Nitro enclave. Standard library only: this runs on the parent."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nitro_enclave
short_description: Run an AWS Nitro enclave as it is wanted
version_added: "0.1.0"
description:
  - Compares the enclave of a name with what is wanted (image, CPUs, memory, CID, no debug mode), and
    starts it, or stops it and starts it anew.
  - The image is measured first. One with another PCR0 than O(pcr0), or a damaged one, is refused before
    anything is stopped; so the enclave that runs stays.
  - An enclave in debug mode, which its parent can look into, counts as another one unless O(debug) is set.
  - What C(nitro-cli) tells of an enclave is the parent's own word. Only the enclave's attestation document
    proves anything.
options:
  name:
    description: Name of the enclave.
    type: str
    default: k3s-daas-master
  state:
    description:
      - V(started) has it run as wanted.
      - V(restarted) has it run as wanted, and starts it anew also when it does.
      - V(stopped) ends it.
    type: str
    choices: [started, restarted, stopped]
    default: started
  eif:
    description: The image on the host. Needed unless O(state=stopped).
    type: path
  pcr0:
    description: PCR0 that the image has to have, 96 hex digits. Needed unless O(state=stopped).
    type: str
  cpu_count:
    description: CPUs for it, whole cores.
    type: int
    default: 2
  memory_mib:
    description: Memory for it, in MiB. It may get up to one huge page (at most 1 GiB) more.
    type: int
    default: 4096
  enclave_cid:
    description: Its vsock address, from 4 on; V(0) is any.
    type: int
    default: 0
  debug:
    description: Whether it is to run in debug mode. Its PCRs are zero then, and no chain and no client
      accepts it.
    type: bool
    default: false
  unit:
    description:
      - The systemd unit that runs the enclave, with the same settings; it is started and stopped in place
        of calling C(nitro-cli). Without it the enclave belongs to nobody, and isn't started again when it
        ends.
    type: str
  nitro_cli:
    description: The program.
    type: str
    default: nitro-cli
attributes:
  check_mode:
    support: full
    description: An image or a C(nitro-cli) that isn't there yet counts as brought by the run.
  diff_mode:
    support: full
    description: Shows what runs, and what would.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Run the control plane
  nitro_enclave:
    eif: /var/lib/k3s-daas-enclave/master.eif
    pcr0: "{{ allowed_pcr0 }}"
    cpu_count: 2
    memory_mib: 4096
    enclave_cid: 16

- name: End it
  nitro_enclave:
    state: stopped
"""

RETURN = r"""
enclave:
  description: The one that runs now, C(id), C(name), C(cid), C(cpus), C(memory_mib), C(state), C(flags),
    C(pid) and C(pcr0) of its image; null when none runs. In check mode the one that runs still.
  type: dict
  returned: success
reasons:
  description: Why it was started anew, or would be.
  type: list
  elements: str
  returned: success
"""

import os

from ansible.module_utils import k3s_daas_nitro as nitro
from ansible.module_utils.basic import AnsibleModule


def look(module, cli):
    """The enclave of that name; None too in check mode when nitro-cli would only be installed."""
    try:
        return cli.named(module.params["name"])
    except nitro.NitroError as error:
        if module.check_mode and error.code == nitro.MISSING:
            return None
        raise


def check(module, cli, wanted):
    """Raises NitroError unless the image is the wanted one; in check mode it may be still to come."""
    path = module.params["eif"]
    if module.check_mode and not os.path.exists(path):  # noqa: PTH110
        return
    try:
        image = cli.image(path)
    except nitro.NitroError as error:
        if module.check_mode and error.code == nitro.MISSING:
            return
        raise
    nitro.check_image(image, wanted.pcr0, path)


def unit_runs(module):
    """Whether the unit runs, or is about to; False without one."""
    if not module.params["unit"]:
        return False
    show = ["systemctl", "show", "--property=ActiveState", "--value", "--", module.params["unit"]]
    return module.run_command(show)[1].strip() not in ("", "inactive", "failed")


def systemctl(module, verb):
    unit = module.params["unit"]
    code, _, error = module.run_command(["systemctl", verb, "--", unit])
    if code:
        journal = ["journalctl", "--no-pager", "--output=cat", "--lines=10", f"--unit={unit}"]
        words = module.run_command(journal)[1].strip()
        raise nitro.NitroError(f"`systemctl {verb} {unit}` failed: {error.strip()} Its last words: {words}")


def stop(module, cli):
    if module.params["unit"]:
        systemctl(module, "stop")
    # Also one that was started beside the unit.
    left = cli.named(module.params["name"])
    if left is not None:
        cli.terminate(left.id)


def start(module, cli, wanted):
    """The enclave that was started. Raises NitroError, and lets none run that isn't as wanted."""
    if module.params["unit"]:
        systemctl(module, "start")
    else:
        cli.start(module.params["name"], module.params["eif"], wanted)
    enclave = cli.named(module.params["name"])
    if enclave is None:
        raise nitro.NitroError(
            f"Found no enclave {module.params['name']} after it was started; wanted it running. It ended at "
            "once: give it more memory, or run it with debug and read `nitro-cli console`."
        )
    wrong = nitro.differences(enclave, wanted)
    if wrong:
        stop(module, cli)
        fix = "Bring the unit's settings in line and run it" if module.params["unit"] else "Run it"
        raise nitro.NitroError(
            f"Found another enclave started than the wanted one: {'; '.join(wrong)}. It was stopped. "
            f"{fix} again."
        )
    return enclave


def told(enclave):
    return {} if enclave is None else {k: v for k, v in enclave._asdict().items() if k not in ("id", "pid")}


def work(module):
    params = module.params
    cli = nitro.Cli(params["nitro_cli"])
    if params["state"] == "stopped":
        before = look(module, cli)
        changed, reasons, after = before is not None or unit_runs(module), [], None
        if changed and not module.check_mode:
            stop(module, cli)
        expected = {}
    else:
        wanted = nitro.Wanted(
            nitro.pcr(params["pcr0"], "the wanted PCR0"),
            *(params["cpu_count"], params["memory_mib"], params["enclave_cid"], params["debug"]),
        )
        check(module, cli, wanted)
        before = after = look(module, cli)
        reasons = ["none runs"] if before is None else nitro.differences(before, wanted)
        if before is not None and params["unit"] and not unit_runs(module):
            reasons.append(f"{params['unit']} doesn't run it")
        if params["state"] == "restarted" and before is not None:
            reasons.append("a restart was asked for")
        changed = bool(reasons)
        if changed and not module.check_mode:
            if before is not None:
                stop(module, cli)
            after = start(module, cli, wanted)
        # Of an enclave that is only planned no more is known.
        planned = {"name": params["name"], "pcr0": wanted.pcr0, "cpus": wanted.cpus}
        planned |= {"memory_mib": wanted.memory_mib, "state": "RUNNING"}
        expected = planned if changed and module.check_mode else told(after)
    module.exit_json(
        changed=changed,
        reasons=reasons,
        enclave=None if after is None else after._asdict(),
        diff={"before": told(before), "after": expected, "before_header": params["name"]},
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "k3s-daas-master"},
            "state": {"type": "str", "choices": ["started", "restarted", "stopped"], "default": "started"},
            "eif": {"type": "path"},
            "pcr0": {"type": "str"},
            "cpu_count": {"type": "int", "default": 2},
            "memory_mib": {"type": "int", "default": 4096},
            "enclave_cid": {"type": "int", "default": 0},
            "debug": {"type": "bool", "default": False},
            "unit": {"type": "str"},
            "nitro_cli": {"type": "str", "default": "nitro-cli"},
        },
        required_if=[("state", state, ("eif", "pcr0")) for state in ("started", "restarted")],
        supports_check_mode=True,
    )
    try:
        work(module)
    except nitro.NitroError as error:
        module.fail_json(msg=str(error), code=error.code)


if __name__ == "__main__":
    main()

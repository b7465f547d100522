#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Make a worker's seal token where it is used. Standard library only: this runs on the worker itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: seal_commitment
short_description: Make a host's seal token and return its commitment
version_added: "0.1.0"
description:
  - Makes the seal token of a worker on the worker, once, and returns only its SHA-256 commitment, which goes
    on-chain. The secret never leaves the host.
  - The file appears complete or not at all, with mode 0600. An existing one is never changed, only checked.
  - Runs with the Python of the host and needs nothing but its standard library.
  - A seal token has nothing to do with Mysten's Seal.
options:
  node_id:
    description: Name of the worker; an RFC 1123 label. Returned as it is, so that results can be collected.
    type: str
    required: true
  path:
    description: File that holds the secret. Its folder is made with mode 0755 when it doesn't exist.
    type: path
    default: /etc/k3s-daas/seal-token
  state:
    description: V(present) makes the secret when there is none; V(absent) removes it for good.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Predicts; a secret that isn't there yet has no commitment to predict, which is then empty.
  diff_mode:
    support: full
    description: Shows presence and mode of the file, never its content.
author:
  - K3s-DaaS authors
"""

EXAMPLES = r"""
- name: Make the worker's seal token
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
  register: worker_seal
- name: Stake for all workers in one transaction
  sui_stake:
    workers: "{{ ansible_play_hosts | map('extract', hostvars, 'worker_seal') | list }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
    package_id: "{{ package_id }}"
    registry_id: "{{ registry_id }}"
  delegate_to: localhost
  run_once: true
- name: Remove the secret of a worker that left
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: absent
"""

RETURN = r"""
node_id:
  description: The name given.
  type: str
  returned: always
commitment:
  description: SHA-256 of the secret in hex; empty when there is no secret.
  type: str
  returned: always
path:
  description: Where the secret is.
  type: str
  returned: always
"""

import base64
import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

_NODE_ID = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"seal_([A-Za-z0-9_-]{43})")
_FIX = "Remove it to have a new secret made; a worker that is staked then needs its token rotated."


class Refused(Exception):
    """Found something else than a seal token of ours; the message never holds its content."""


def encode(data):
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def make_token():
    """A new secret: 256 bits from the operating system. The format is that of k3s_daas.seal."""
    return "seal_" + encode(os.urandom(32))


def commitment_of(token):
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def read_token(path):
    """The secret at `path`, None when there is no file. Refused when it is unsafe or malformed."""
    try:
        # Without following links, and without waiting for a pipe's other end.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(
            f"Seal token file {path} can't be opened ({error.strerror}), wanted a regular file with "
            "mode 0600. Remove what is there."
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"Seal token {path} is no regular file, wanted one with mode 0600. Remove it.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise Refused(
                f"Seal token file {path} has mode {mode:04o}, wanted 0600: others may have read the "
                f"secret. {_FIX}"
            )
        if status.st_uid != os.geteuid():
            raise Refused(
                f"Seal token file {path} belongs to user {status.st_uid}, wanted {os.geteuid()}: its "
                f"owner knows the secret. {_FIX}"
            )
        content = os.read(fd, 4096)
    finally:
        os.close(fd)
    token = parse_token(content)
    if token is None:
        raise Refused(
            f"Seal token file {path} holds {len(content)} bytes that are no seal token, wanted 'seal_' "
            f"and 43 characters of base64url. It may be cut off. {_FIX}"
        )
    return token


def parse_token(content):
    """The secret in a file's bytes, None when they are none."""
    try:
        token = content.decode("ascii")
    except UnicodeDecodeError:
        return None
    token = token[:-1] if token.endswith("\n") else token
    match = _TOKEN.fullmatch(token)
    # The last character carries two bits too many, and one secret must not have two spellings.
    return token if match and encode(base64.urlsafe_b64decode(match[1] + "=")) == match[1] else None


def write_token(path, token):
    """Put a new secret at `path`, complete or not at all, and never over one that is there."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)  # whatever the umask: services read other files in here
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a run that was killed: nobody has seen that secret
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(token.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    # The name has to survive a power cut too: the commitment is about to cost money.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def run(node_id, path, state, check_mode):
    """(changed, commitment) of bringing the secret at `path` into `state`."""
    if not _NODE_ID.fullmatch(node_id):
        raise Refused(
            f"Found node id {node_id[:80]!r}, wanted an RFC 1123 label: 1 to 63 of a-z, 0-9 and '-', "
            "starting and ending with a letter or digit. Rename the host or set its node id."
        )
    if not path.is_absolute():
        raise Refused(f"Found path {path}, wanted an absolute path.")
    if state == "absent":
        if not os.path.lexists(path):
            return False, ""
        if not check_mode:
            path.unlink()
        return True, ""
    token = read_token(path)
    if token is not None:
        return False, commitment_of(token)
    if check_mode:
        return True, ""
    with contextlib.suppress(FileExistsError):
        write_token(path, make_token())
    token = read_token(path)  # what is on disk counts, also when somebody else was faster
    if token is None:
        raise Refused(f"Seal token file {path} vanished while it was made. Run again.")
    return True, commitment_of(token)


def describe(present):
    return {"state": "present", "mode": "0600"} if present else {"state": "absent"}


def main():
    module = AnsibleModule(
        argument_spec={
            "node_id": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/k3s-daas/seal-token"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    path, state = Path(module.params["path"]), module.params["state"]
    present = os.path.lexists(path)
    try:
        changed, commitment = run(module.params["node_id"], path, state, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Can't keep the seal token at {path}: {error.strerror}. Check folder and disk.")
    module.exit_json(
        changed=changed,
        node_id=module.params["node_id"],
        commitment=commitment,
        path=str(path),
        diff={"before": describe(present), "after": describe(state == "present"), "before_header": str(path)},
    )


if __name__ == "__main__":
    main()

"""The module enclave_image's work: from its options to a build, or to what is there already."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k3s_daas.image import apt, build, lock
from k3s_daas.image.build import File, Inputs, Kernel
from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock
from k3s_daas.image.rootfs import User


def run(options: Mapping[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """The record of the image and whether it is `changed`; no record of one that is only planned.

    One run at a time works on a cache. Raises ImageError and OSError.
    """
    cache, folder, path = (Path(options[name]).resolve() for name in ("cache_dir", "dir", "lock"))
    source = apt.Source(tuple(options["sources"]), options["suite"], options["architecture"])
    if check_mode and (options["update_lock"] or not cache.is_dir()):
        return {"changed": True}
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        ours = apt.Apt(cache / "apt", source)
        if options["update_lock"]:
            ours.update()
            path.write_text(ours.resolve(options["packages"]).text())
        locked = lock.load(path)
        locked.check_wanted(options["packages"])
        wanted = inputs(options, locked)
        record = build.current(wanted, folder)
        if record is not None:
            return record | {"changed": False}
        if check_mode:
            return {"changed": True}
        return build.build(wanted, apt.fetch(ours, locked, cache / "packages"), cache, folder) | {
            "changed": True
        }


def inputs(options: Mapping[str, Any], locked: Lock) -> Inputs:
    """What the options say. Raises ImageError."""
    kernel, module = options["kernel"], options["nsm_module"]
    return Inputs(
        lock=locked,
        users=tuple(User(**user) for user in options["users"]),
        files=tuple(_file(given) for given in options["files"]),
        init=options["init"],
        wheelhouse=Path(options["wheelhouse"]),
        wheelhouse_name=options["wheelhouse_name"],
        python=options["python_version"],
        nsm_module=Path(module) if module else None,
        kernel=Kernel(Path(kernel), options["cmdline"], options["eif_build"] or "") if kernel else None,
    )


def _file(given: Mapping[str, Any]) -> File:
    is_folder = all(given[key] is None for key in ("content", "source", "target"))
    mode = given["mode"] or ("0755" if is_folder else "0644")
    try:
        permissions = int(mode, 8)
    except ValueError:
        raise ImageError(f"Found the mode {mode!r} of {given['path']}; wanted one like 0644.") from None
    source = None if given["source"] is None else Path(given["source"])
    return File(given["path"], permissions, given["owner"], given["content"], source, given["target"])

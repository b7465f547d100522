"""What a run for another image has to do, by the chain and by what earlier runs noted on the carrier.

The note is a file on the host that carries the master. It is bookkeeping: what may be master the chain alone
decides. Its fields: `pcr0`, `pcr3`, `image` (a file on the carrier, or "") of the image that is to run;
`previous`, the same of the one to go back to, or null; `retired`, those that are to be taken off the list;
`switching`, true from when the old one is stopped; `promoted_ms`, when the new one was found at work; and
`rolled_back`, true when a rollback wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_FIELDS = {
    "pcr0": str,
    "pcr3": str,
    "image": str,
    "previous": (dict, type(None)),
    "retired": list,
    "switching": bool,
    "promoted_ms": int,
    "rolled_back": bool,
}
_IMAGE_FIELDS = {"pcr0", "pcr3", "image"}


def image_update_note(text: str) -> dict[str, Any] | None:
    """The note in `text`, None in an empty one. Raises AnsibleFilterError."""
    if not text.strip():
        return None
    try:
        found = json.loads(text)
        good = isinstance(found, dict) and set(found) == set(_FIELDS)
        good = good and all(isinstance(found[name], kind) for name, kind in _FIELDS.items())
        good = good and (found["previous"] is None or set(found["previous"]) == _IMAGE_FIELDS)
    except ValueError:
        good = False
    if not good:
        raise AnsibleFilterError(
            "Found /etc/k3s-daas/image-update.json damaged, or another release's; wanted what an earlier "
            "update left there. Remove it: then no image is known to go back to, and old ones have to be "
            "taken off the list with sui_images."
        )
    return dict(found)


def image_update_plan(
    note: Mapping[str, Any] | None, live: Mapping[str, str], wanted: Mapping[str, str]
) -> dict[str, Any]:
    """{note, switch} of a run that is to end with the image `wanted` at work.

    Args:
        note: as `image_update_note` gives it
        live: `pcr0`, `pcr3` and `image` of the live master's
        wanted: the same of the new one
    """
    runs = live["pcr0"] == wanted["pcr0"]
    if note is not None and note["pcr0"] == wanted["pcr0"]:
        return {"note": dict(note), "switch": not runs}
    if (
        runs
        and note is not None
        and note["previous"] is not None
        and note["previous"]["pcr0"] == wanted["pcr0"]
    ):
        # An update that was begun, and given up for the image that runs.
        return {"note": _taken_back(note), "switch": False}
    if runs:
        return {"note": None, "switch": False}
    retired = [*(note["retired"] if note is not None else []), _measured(live)]
    fresh = _note(wanted, previous=_image(live), retired=_without(retired, wanted))
    return {"note": fresh, "switch": True}


def image_update_plan_back(note: Mapping[str, Any] | None, live: Mapping[str, str]) -> dict[str, Any]:
    """{note, switch} of a run that is to end with the image of before. Raises AnsibleFilterError."""
    if note is not None and note["rolled_back"]:
        return {"note": dict(note), "switch": live["pcr0"] != note["pcr0"]}
    if note is None or note["previous"] is None:
        raise AnsibleFilterError(
            "Found no update on this host that could be taken back, wanted one by "
            "playbooks/update_image.yml. To go to any other image, run that playbook with the image's record."
        )
    fresh = _taken_back(note)
    return {"note": fresh, "switch": live["pcr0"] != fresh["pcr0"]}


def image_update_withdrawn(note: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The note after an update that failed and was taken back. `now_ms` is the chain's time."""
    back = note["previous"]
    fresh = _note(back, previous=None, retired=_without(note["retired"], back))
    return fresh | {"rolled_back": True, "promoted_ms": int(now_ms)}


def _taken_back(note: Mapping[str, Any]) -> dict[str, Any]:
    back = note["previous"]
    retired = [*note["retired"], _measured(note)]
    return _note(back, previous=None, retired=_without(retired, back)) | {"rolled_back": True}


def _note(
    image: Mapping[str, str], *, previous: dict[str, str] | None, retired: list[dict[str, str]]
) -> dict[str, Any]:
    at_first = {"switching": False, "promoted_ms": 0, "rolled_back": False}
    return {**_image(image), "previous": previous, "retired": retired, **at_first}


def _image(image: Mapping[str, str]) -> dict[str, str]:
    return {name: str(image[name]) for name in ("pcr0", "pcr3", "image")}


def _measured(image: Mapping[str, str]) -> dict[str, str]:
    return {name: str(image[name]) for name in ("pcr0", "pcr3")}


def _without(images: list[dict[str, str]], kept: Mapping[str, str]) -> list[dict[str, str]]:
    """Each once, but for `kept`."""
    found: list[dict[str, str]] = []
    for image in images:
        if image["pcr0"] != kept["pcr0"] and image not in found:
            found.append(image)
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "image_update_note": image_update_note,
            "image_update_plan": image_update_plan,
            "image_update_plan_back": image_update_plan_back,
            "image_update_withdrawn": image_update_withdrawn,
        }

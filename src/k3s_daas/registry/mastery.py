"""Deciding who is master: the appointment, its gas, the images that may attest as one. Amounts in MIST."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.client import Registry
from k3s_daas.registry.model import Fields, Master
from k3s_daas.registry.operation import Operation
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Transaction

PCR_BYTES = 48
MAX_IMAGES = 32
#: An empty struct is one false byte on-chain.
_IMAGES_KEY = b"\0"
_HEX = re.compile(r"[0-9a-fA-F]{96}", re.ASCII)


class InvalidImage(ChainError):
    """Not the measurements of an image that the contract would list."""


@dataclass(frozen=True, order=True)
class Image:
    """PCR0 is the image's measurement, PCR3 that of the parent's IAM role; 48 bytes each."""

    pcr0: bytes
    pcr3: bytes

    def __post_init__(self) -> None:
        for name, value in (("pcr0", self.pcr0), ("pcr3", self.pcr3)):
            if len(value) != PCR_BYTES or not any(value):
                raise InvalidImage(
                    f"Found a {name} of {len(value)} bytes{'' if any(value) else ', all zero'}; wanted 48 "
                    "bytes (96 hex digits) that aren't all zero. Zeros come from an enclave in debug mode, "
                    "or from a parent without IAM role."
                )


def parse_image(pcr0: str, pcr3: str) -> Image:
    """An image of PCRs in hex. InvalidImage when they are none."""
    values = []
    for name, text in (("pcr0", pcr0), ("pcr3", pcr3)):
        if _HEX.fullmatch(text) is None:
            raise InvalidImage(f"Found {text[:80]!r} as {name}, wanted {PCR_BYTES} bytes in hex: 96 digits.")
        values.append(bytes.fromhex(text))
    return Image(*values)


def _appointment(account: str, top_up_mist: int, before: Master | None, *, appoint: bool = True) -> list[str]:
    """What making `account` the master and sending it gas means, in sentences."""
    meaning = []
    if appoint:
        meaning.append(
            f"Makes {account} the master: it sets workers' statuses, claims "
            "and completes requests and reports Ready time, which the reward pool pays for. It can't take a "
            "stake."
        )
        if before is not None:
            meaning.append(
                f"Master {before.account} (epoch {before.epoch}) is none any more at once, and what it "
                "announced is forgotten: no worker joins before the new one has announced itself."
            )
    if top_up_mist:
        meaning.append(f"Sends it {format_sui(top_up_mist)} for gas, which is all that is lost with its key.")
    return meaning


def foreseen_master(account: str, bound_mist: int, *, attests: bool = False) -> Operation:
    """The appointment where the registry, or the master's account, would only be made by this run."""
    meaning = _appointment(account, bound_mist, None, appoint=not attests)
    return Operation(pays_mist=bound_mist, meaning=meaning)


async def plan_master(
    registry: Registry, account: str, bound_mist: int, *, attests: bool = False
) -> tuple[Master | None, int, Operation]:
    """(the master now, gas to send, what to send) of `account` being the master with gas up to the bound.

    One that `attests` itself is not appointed: it gets the gas for its own registration. MissingCap when the
    wallet may not appoint one.
    """
    chain = registry.chain
    master, balance = await registry.master(), await chain.balance(account)
    appoint = not attests and (master is None or master.account != account)
    # Not at every run: the master spends a little all the time, and nothing has changed for it.
    top_up = bound_mist - balance if balance < bound_mist // 2 and account != chain.address else 0
    cap = await registry.cap("OperatorCap") if appoint else None
    builds = [registry.appointing(account, top_up, cap)] if appoint or top_up else []
    meaning = _appointment(account, top_up, master, appoint=appoint)
    return master, top_up, Operation(builds, pays_mist=top_up, meaning=meaning)


async def allowed_images(registry: Registry) -> frozenset[Image]:
    """The images that may attest as a master."""
    deployment = registry.deployment
    key = f"{deployment.types_id}::nautilus::ImagesKey"
    found = await registry.chain.dynamic_field(deployment.registry_id, key, _IMAGES_KEY)
    if found is None:
        return frozenset()  # until the first is allowed
    entries = Fields(found.json, "Images field").struct("value").raw("contents")
    images = (Fields(entry, "Image") for entry in entries)
    return frozenset(Image(image.data("pcr0"), image.data("pcr3")) for image in images)


async def plan_images(registry: Registry, wanted: frozenset[Image]) -> tuple[frozenset[Image], Operation]:
    """(images listed now, what to send) of exactly `wanted` being listed. MissingCap without OperatorCap."""
    if len(wanted) > MAX_IMAGES:
        raise InvalidImage(f"Found {len(wanted)} images, wanted at most {MAX_IMAGES}. Take old ones out.")
    before, master = await allowed_images(registry), await registry.master()
    steps = [("disallow_image", image) for image in sorted(before - wanted)]
    steps += [("allow_image", image) for image in sorted(wanted - before)]
    if not steps:
        return before, Operation()
    cap = await registry.cap("OperatorCap")

    async def build(tx: Transaction) -> None:
        for verb, image in steps:
            pcrs = tx.data(image.pcr0), tx.data(image.pcr3)
            registry.call(tx, f"nautilus::{verb}", tx.object(cap), *pcrs)

    meaning = [_meaning(verb, image, master) for verb, image in steps]
    return before, Operation([build], meaning=meaning)


def _meaning(verb: str, image: Image, master: Master | None) -> str:
    what = f"image {image.pcr0.hex()} under IAM role {image.pcr3.hex()}"
    if verb == "allow_image":
        return f"Lets whoever runs {what} attest as the master, which replaces the live one."
    if master is not None and (master.pcr0, master.pcr3) == (image.pcr0, image.pcr3):
        return (
            f"Takes {what} off the list. Master {master.account} (epoch {master.epoch}) runs it and is none "
            "any more at once: no worker joins until another image attests itself."
        )
    return f"Takes {what} off the list: it can't attest as a master any more."

"""nautilus: masters by attestation, the ratchet, and the end of a master's right."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import contract_masters
import pytest
from contract_ledger import (
    CLOCK,
    DAY_MS,
    NOON_MS,
    Aborted,
    Chain,
    Registry,
    Result,
    aborts,
    compiled,
    created,
    events,
    sha,
    u64,
)

from k3s_daas.chain import bcs
from k3s_daas_localnet.ledger.effects import Executed
from k3s_daas_localnet.nsm import NsmEmulator

PCR0, PCR3 = b"\x10" * 48, b"\x13" * 48


def image(registry: Registry, verb: str, pcr0: bytes = PCR0, pcr3: bytes = PCR3) -> Executed:
    args = registry.operator_cap, bcs.data(pcr0), bcs.data(pcr3)
    return registry.call(registry.admin, f"nautilus::{verb}", *args)


def user_data(registry: Registry, account: str, **changed: Any) -> bytes:
    wanted = {
        "package": registry.package,
        "registry": registry.id,
        "account": account,
        "chain_id": sha("chain"),
        "ca_hash": sha("ca"),
        "config_hash": sha("config"),
    }
    return contract_masters.user_data(**wanted | changed)


def attest(registry: Registry, sender: str, account: str, **changed: Any) -> Executed:
    """What register_master does with a document of these fields."""
    fields = {
        "pcr0": PCR0,
        "pcr3": PCR3,
        "timestamp_ms": registry.chain.now_ms,
        "public_key": sha("key"),
        "user_data": user_data(registry, account),
    } | changed
    return registry.call(
        sender,
        "hooks::admit_master",
        bcs.data(fields["pcr0"]),
        bcs.data(fields["pcr3"]),
        u64(fields["timestamp_ms"]),
        bcs.data(fields["public_key"]),
        bcs.data(fields["user_data"]),
        CLOCK,
    )


def announce(registry: Registry, sender: str, cap: str, ca: str = "ca") -> Executed:
    urls = bcs.string("https://m:8443"), bcs.string("https://m:6443")
    return registry.call(sender, "k8s_gateway::announce_master", cap, *urls, bcs.data(sha(ca)), CLOCK)


@pytest.fixture
def attested(make_registry: Callable[..., Registry]) -> Registry:
    """A registry that requires attestation and allows one image."""
    registry = make_registry(require_attestation=True)
    image(registry, "allow_image")
    return registry


def test_an_attestation_makes_its_account_the_master(
    chain: Chain, attested: Registry, anne: str, master: str
) -> None:
    done = attest(attested, anne, master)  # whoever sends it in
    cap = created(done, "MasterCap")
    assert chain.object(cap)["epoch"] == "1"
    (event,) = events(done, "MasterAppointedEvent")
    assert event == {"registry": attested.id, "epoch": "1", "account": master}
    (event,) = events(done, "MasterAttestedEvent")
    assert (event["account"], event["expires_at_ms"]) == (master, str(chain.now_ms + DAY_MS))
    announced = announce(attested, master, cap)
    (event,) = events(announced, "MasterAnnouncedEvent")
    assert event["attestation_expires_at_ms"] == str(chain.now_ms + DAY_MS)
    record = attested.read()["master"]
    assert (record["account"], record["endpoint"], record["public_key"]) == (
        master,
        "https://m:8443",
        event["public_key"],
    )
    fields = map(bcs.data, (sha("key"), PCR0, PCR3))
    times = u64(chain.now_ms), u64(chain.now_ms + DAY_MS)
    binding = map(bcs.data, map(sha, ("chain", "ca", "config")))
    attested.call(anne, "hooks::check_master", bcs.address(master), *fields, *times, *binding)
    with aborts("EKeyIsAttested"):
        attested.call(master, "k8s_gateway::announce_master_key", cap, bcs.data(sha("other")), CLOCK)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"pcr0": bytes(48)}, "EInvalidPcr"),
        ({"pcr3": bytes(48)}, "EInvalidPcr"),
        ({"pcr0": b""}, "EInvalidPcr"),
        ({"pcr0": PCR0[:47]}, "EInvalidPcr"),
        ({"pcr3": PCR3 + b"\x13"}, "EInvalidPcr"),
        ({"pcr0": PCR3}, "EImageNotAllowed"),
        ({"pcr3": PCR0}, "EImageNotAllowed"),
        ({"public_key": b""}, "EInvalidPublicKey"),
        ({"public_key": bytes(31)}, "EInvalidPublicKey"),
        ({"public_key": bytes(33)}, "EInvalidPublicKey"),
        ({"user_data": b""}, "EUnexpectedUserData"),
        ({"user_data": b"k3s-daas-master-v1" + bytes(64)}, "EUnexpectedUserData"),
        ({"user_data": b"k3s-daas-master-v1" + bytes(192)}, "EUnexpectedUserData"),
    ],
)
def test_a_document_with_one_thing_wrong(
    attested: Registry, master: str, changed: dict[str, bytes], error: str
) -> None:
    with aborts(error):
        attest(attested, master, master, **changed)
    attest(attested, master, master)


def test_user_data_names_this_package_and_registry_and_one_account(
    attested: Registry, make_registry: Callable[..., Registry], master: str
) -> None:
    right = user_data(attested, master)
    for wrong in (
        user_data(make_registry(), master),
        user_data(attested, master, package=attested.id),
        right.replace(b"-v1", b"-v2"),
        right.replace(b"master", b"serves"),
        right[:-1],
        right + b"\0",
    ):
        with aborts("EUnexpectedUserData"):
            attest(attested, master, master, user_data=wrong)


def test_what_else_it_was_given_is_in_its_record(chain: Chain, attested: Registry, master: str) -> None:
    cap = created(attest(attested, master, master), "MasterCap")
    with aborts("EOtherCa"):
        announce(attested, master, cap, "another")
    announce(attested, master, cap)
    chain.clock.advance(1)
    # The next document says something else of all three: the record does, too, and it announces itself anew.
    changed = {"chain_id": sha("fork"), "ca_hash": sha("new ca"), "config_hash": sha("new config")}
    done = attest(attested, master, master, user_data=user_data(attested, master, **changed))
    (event,) = events(done, "MasterAttestedEvent")
    binding = attested.read()["master"]["binding"]
    encoded = {name: base64.b64encode(value).decode() for name, value in changed.items()}
    assert binding == {name: event[name] for name in changed} == encoded
    with aborts("EOtherCa"):
        announce(attested, master, cap)
    announce(attested, master, cap, "new ca")


def test_a_master_that_nothing_attests_is_bound_to_nothing(registry: Registry, master: str) -> None:
    announce(registry, master, registry.master_cap, "any")
    assert set(registry.read()["master"]["binding"].values()) == {""}


def test_only_a_fresh_document(chain: Chain, attested: Registry, master: str) -> None:
    for age_ms in (300_001, -60_001):
        with aborts("EAttestationNotFresh"):
            attest(attested, master, master, timestamp_ms=chain.now_ms - age_ms)
    attest(attested, master, master, timestamp_ms=chain.now_ms - 300_000)
    assert attested.read()["master"]["attestation_expires_at_ms"] == str(chain.now_ms - 300_000 + DAY_MS)
    attest(attested, master, master, timestamp_ms=chain.now_ms + 60_000, public_key=sha("next"))
    # Never more than 24 hours from now, whatever the document's clock says.
    assert attested.read()["master"]["attestation_expires_at_ms"] == str(chain.now_ms + DAY_MS)


def test_a_key_is_attested_once_and_renewed_by_its_master_alone(
    chain: Chain, attested: Registry, anne: str, master: str
) -> None:
    cap = created(attest(attested, master, master), "MasterCap")
    announce(attested, master, cap)
    for account in (master, anne):  # the same document again, and the key in another account's
        with aborts("EPublicKeyUsed"):
            attest(attested, anne, account)
    chain.clock.advance(DAY_MS // 2)
    done = attest(attested, master, master)  # renewed: same epoch, cap and announcement
    assert events(done, "MasterAppointedEvent") == []
    record = attested.read()["master"]
    assert (record["epoch"], record["endpoint"]) == ("1", "https://m:8443")
    assert record["attestation_expires_at_ms"] == str(chain.now_ms + DAY_MS)
    attest(attested, anne, anne, public_key=sha("another enclave"))
    assert attested.read()["master"]["epoch"] == "2"
    with aborts("EMasterSuperseded"):
        announce(attested, master, cap)
    chain.clock.advance(1_000)
    with aborts("EPublicKeyUsed"):  # the first one does not come back with its old key
        attest(attested, master, master)


def test_an_attestation_ends(chain: Chain, attested: Registry, anne: str, master: str) -> None:
    cap = created(attest(attested, master, master), "MasterCap")
    attested.stake(anne, "w")
    attested.master_cap = cap
    chain.clock.advance(DAY_MS - 1)
    attested.activate(master, "w")
    chain.clock.advance(1)
    with aborts("EAttestationExpired"):
        attested.activate(master, "w", status="busy")
    with aborts("EAttestationExpired"):
        announce(attested, master, cap)
    attest(attested, master, master)  # late, but it is still the live one
    attested.activate(master, "w", status="busy")


def test_an_operator_appoints_none_where_attestation_is_required(attested: Registry, master: str) -> None:
    with aborts("EAttestationRequired"):
        attested.appoint(master)


def test_the_ratchet_voids_the_master_that_no_attestation_gave(registry: Registry, master: str) -> None:
    cap = registry.master_cap
    announce(registry, master, cap)
    done = registry.call(registry.admin, "nautilus::enable_attestation", registry.admin_cap)
    assert [event.type.name for event in done.events] == ["AttestationRequiredEvent", "MasterVoidedEvent"]
    found = registry.read()
    assert (found["require_attestation"], found["master"], found["master_epoch"]) == (True, None, "1")
    with aborts("EMasterSuperseded"):
        announce(registry, master, cap)
    with aborts("EAttestationRequired"):
        registry.appoint(master)
    again = registry.call(registry.admin, "nautilus::enable_attestation", registry.admin_cap)
    assert again.events == ()
    image(registry, "allow_image")
    new = created(attest(registry, master, master), "MasterCap")
    assert registry.read()["master"]["epoch"] == "2"  # numbers are never used again
    with aborts("EMasterSuperseded"):
        announce(registry, master, cap)
    announce(registry, master, new)


def test_the_ratchet_leaves_an_attested_master(registry: Registry, master: str) -> None:
    image(registry, "allow_image")
    cap = created(attest(registry, master, master), "MasterCap")
    done = registry.call(registry.admin, "nautilus::enable_attestation", registry.admin_cap)
    assert events(done, "MasterVoidedEvent") == []
    announce(registry, master, cap)


def test_without_a_master_there_is_nothing_to_void(make_registry: Callable[..., Registry]) -> None:
    registry = make_registry()
    done = registry.call(registry.admin, "nautilus::enable_attestation", registry.admin_cap)
    assert [event.type.name for event in done.events] == ["AttestationRequiredEvent"]


def test_an_image_that_is_allowed_no_more_ends_its_master(attested: Registry, master: str) -> None:
    image(attested, "allow_image", PCR3, PCR0)
    cap = created(attest(attested, master, master), "MasterCap")
    assert events(image(attested, "disallow_image", PCR3, PCR0), "MasterVoidedEvent") == []
    announce(attested, master, cap)
    (event,) = events(image(attested, "disallow_image"), "MasterVoidedEvent")
    assert (event["epoch"], event["account"]) == ("1", master)
    with aborts("EMasterSuperseded"):
        announce(attested, master, cap)
    with aborts("EImageNotAllowed"):
        attest(attested, master, master)
    assert image(attested, "disallow_image").events == ()  # again: nothing changes


def test_the_list_of_images(attested: Registry) -> None:
    assert image(attested, "allow_image").events == ()  # again: nothing changes
    for pcr0, pcr3 in ((bytes(48), PCR3), (PCR0, bytes(48)), (PCR0[:47], PCR3)):
        with aborts("EInvalidPcr"):
            image(attested, "allow_image", pcr0, pcr3)
    for number in range(31):
        image(attested, "allow_image", bytes([number + 100]) * 48, PCR3)
    with aborts("EImageListFull"):
        image(attested, "allow_image", b"\xff" * 48, PCR3)


def test_a_master_without_attestation_tells_its_key(registry: Registry, master: str) -> None:
    for wrong in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidPublicKey"):
            registry.call(
                master, "k8s_gateway::announce_master_key", registry.master_cap, bcs.data(wrong), CLOCK
            )
    key = bcs.data(sha("own key"))
    done = registry.call(master, "k8s_gateway::announce_master_key", registry.master_cap, key, CLOCK)
    (event,) = events(done, "MasterKeyAnnouncedEvent")
    assert event["public_key"] == registry.read()["master"]["public_key"]


def test_a_failed_attestation_burns_no_key(attested: Registry, master: str) -> None:
    with pytest.raises(Aborted):
        attest(attested, master, master, user_data=b"")
    attest(attested, master, master)


def register(registry: Registry, sender: str, document: bytes) -> Executed:
    """A document on its way through the framework's own check into register_master."""
    return registry.chain.send(
        sender,
        ("0x2::nitro_attestation::load_nitro_attestation", [bcs.data(document), CLOCK]),
        (f"{registry.package}::nautilus::register_master", [registry.id, Result(0), CLOCK]),
    )


def test_a_real_document_end_to_end() -> None:
    emulator = NsmEmulator(NOON_MS - 60_000)
    chain = Chain(nitro_root=emulator.root_pem)
    admin, master = chain.actor("admin"), chain.actor("master")
    registry = Registry(chain, chain.publish(admin, compiled()), admin, require_attestation=True)
    image(registry, "allow_image")
    data = user_data(registry, master)

    def document(**changed: Any) -> bytes:
        fields = {"pcrs": {0: PCR0, 3: PCR3}, "public_key": sha("key"), "user_data": data} | changed
        return emulator.document(chain.now_ms, **fields)

    with aborts("EInvalidPcr"):  # debug mode: every PCR is zero
        register(registry, master, document(pcrs={}))
    with aborts("EInvalidPublicKey"):
        register(registry, master, document(public_key=None))
    with aborts("EUnexpectedUserData"):
        register(registry, master, document(user_data=None))
    cap = created(register(registry, admin, document()), "MasterCap")
    announce(registry, master, cap)
    record = registry.read()["master"]
    assert record["attestation_expires_at_ms"] == str(chain.now_ms + DAY_MS)
    with aborts("EPublicKeyUsed"):
        register(registry, admin, document())

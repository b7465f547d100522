/// Who is the master. Named after Mysten's Nautilus, which the attested master follows; this project is not
/// part of it. Times in milliseconds of `sui::clock::Clock`.
///
/// An operator appoints a master, or the master registers an AWS Nitro attestation of an image that the
/// operator listed. Where the registry requires attestation, only the second way is open. There is one live
/// master; every new one starts an epoch, and the MasterCaps of earlier epochs are void.
///
/// The attestation document binds the master's account, so it does not matter who sends it in. Its `user_data`
/// is `k3s-daas-master-v1`, then 32 bytes each: the network's chain id, the package's first id, the registry's
/// id, the account, the CA's hash, and the hash of the configuration that the enclave was given at its start.
/// Package and registry are checked here. A contract can't know its chain's id, nor what an enclave was to be
/// given: both are kept in the master's record, for clients to hold against what they know. The CA is the only
/// one that this master can announce.
///
/// Its PCR3, the parent instance's IAM role, is on the list with PCR0: an image alone is no secret, and anybody
/// could run it on a host of theirs.
module k3s_daas::nautilus;

use k3s_daas::master::{Self, Binding};
use k3s_daas::worker_registry::{AdminCap, OperatorCap, Registry};
use std::type_name;
use sui::address;
use sui::clock::Clock;
use sui::dynamic_field as field;
use sui::event;
use sui::nitro_attestation::NitroAttestationDocument;
use sui::vec_set::{Self, VecSet};

use fun images as Registry.images;
use fun images_mut as Registry.images_mut;
use fun live_key_is as Registry.live_key_is;
use fun void_master as Registry.void_master;

// === Errors ===

#[error]
const EAttestationRequired: vector<u8> =
    b"This registry takes only an attested master: an operator can't appoint one";
#[error]
const EInvalidPcr: vector<u8> =
    b"PCR0 and PCR3 are 48 bytes and not all zero: zeros come from an enclave in debug mode, or one without IAM role";
#[error]
const EImageListFull: vector<u8> = b"The list holds at most 32 images";
#[error]
const EImageNotAllowed: vector<u8> = b"The operator has not allowed this image (PCR0) with this IAM role (PCR3)";
#[error]
const EAttestationNotFresh: vector<u8> =
    b"The attestation is older than 5 minutes, or from more than a minute in the future: make a new one";
#[error]
const EInvalidPublicKey: vector<u8> = b"The attestation's public key is an Ed25519 key: 32 bytes";
#[error]
const EPublicKeyUsed: vector<u8> =
    b"This public key was attested before: only the live master renews its own, with a newer attestation";
#[error]
const EUnexpectedUserData: vector<u8> =
    b"The attestation's user_data must be k3s-daas-master-v1, then chain, this package, this registry, account, CA and configuration";

// === Constants ===

const USER_DATA_PREFIX: vector<u8> = b"k3s-daas-master-v1";
const PCR_BYTES: u64 = 48;
const KEY_BYTES: u64 = 32;
/// Of each part of `user_data` after the prefix.
const PART_BYTES: u64 = 32;
const PARTS: u64 = 6;
const MAX_IMAGES: u64 = 32;
/// 5 minutes and 1 minute in ms: how old a document may be, and how far its clock may run ahead.
const MAX_AGE_MS: u64 = 300_000;
const MAX_SKEW_MS: u64 = 60_000;
/// 24 hours in ms.
const ATTESTATION_LIFETIME_MS: u64 = 86_400_000;

// === Structs ===

/// What the operator allows to attest as a master, 48 bytes each.
public struct Image has copy, drop, store { pcr0: vector<u8>, pcr3: vector<u8> }

/// Key of the registry's `VecSet<Image>`.
public struct ImagesKey() has copy, drop, store;

/// Public key -> true, kept for ever: an enclave makes a new key whenever it starts.
public struct PublicKeyKey(vector<u8>) has copy, drop, store;

// === Events ===

/// A master was appointed; every MasterCap of an earlier epoch is void.
public struct MasterAppointedEvent has copy, drop { registry: ID, epoch: u64, account: address }

/// The master of this epoch has a new attestation: with its appointment, or to renew the last.
public struct MasterAttestedEvent has copy, drop {
    registry: ID,
    epoch: u64,
    account: address,
    public_key: vector<u8>,
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    attested_at_ms: u64,
    expires_at_ms: u64,
    chain_id: vector<u8>,
    ca_hash: vector<u8>,
    config_hash: vector<u8>,
}

/// The master of this epoch is none any more, and there is no other yet.
public struct MasterVoidedEvent has copy, drop { registry: ID, epoch: u64, account: address }

/// From now on only attested masters.
public struct AttestationRequiredEvent has copy, drop { registry: ID }

public struct ImageAllowedEvent has copy, drop { registry: ID, pcr0: vector<u8>, pcr3: vector<u8> }

public struct ImageDisallowedEvent has copy, drop { registry: ID, pcr0: vector<u8>, pcr3: vector<u8> }

// === Appointed masters ===

/// Makes `account` the master of the next epoch and gives it the MasterCap. Nothing of what the last master
/// announced stays.
public fun appoint_master(
    registry: &mut Registry,
    cap: &OperatorCap,
    account: address,
    // not needed since; a published signature can't change, and callers pass it
    _clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.assert_version();
    registry.assert_operator(cap);
    assert!(!registry.require_attestation(), EAttestationRequired);
    let epoch = registry.install_master(account, ctx);
    event::emit(MasterAppointedEvent { registry: object::id(registry), epoch, account });
}

/// Requires attestation from now on, for ever: there is no way back. A master without one is none any more.
/// Doing it twice changes nothing.
public fun enable_attestation(registry: &mut Registry, cap: &AdminCap) {
    registry.assert_version();
    registry.assert_admin(cap);
    if (registry.require_attestation()) return;
    registry.set_require_attestation();
    event::emit(AttestationRequiredEvent { registry: object::id(registry) });
    let master = registry.master();
    if (master.is_some() && !master.borrow().is_attested()) registry.void_master();
}

// === Attested masters ===

/// Lets an image attest as a master. Allowing twice changes nothing.
public fun allow_image(registry: &mut Registry, cap: &OperatorCap, pcr0: vector<u8>, pcr3: vector<u8>) {
    registry.assert_version();
    registry.assert_operator(cap);
    assert!(is_pcr(&pcr0) && is_pcr(&pcr3), EInvalidPcr);
    let image = Image { pcr0, pcr3 };
    let id = object::id(registry);
    let images = registry.images_mut();
    if (images.contains(&image)) return;
    assert!(images.length() < MAX_IMAGES, EImageListFull);
    images.insert(image);
    event::emit(ImageAllowedEvent { registry: id, pcr0, pcr3 });
}

/// Takes an image off the list; a live master that runs it is none any more. Taking off twice changes nothing.
public fun disallow_image(registry: &mut Registry, cap: &OperatorCap, pcr0: vector<u8>, pcr3: vector<u8>) {
    registry.assert_version();
    registry.assert_operator(cap);
    let image = Image { pcr0, pcr3 };
    let id = object::id(registry);
    let images = registry.images_mut();
    if (!images.contains(&image)) return;
    images.remove(&image);
    event::emit(ImageDisallowedEvent { registry: id, pcr0, pcr3 });
    let master = registry.master();
    if (master.is_some() && master.borrow().pcr0() == pcr0 && master.borrow().pcr3() == pcr3) {
        registry.void_master();
    };
}

/// Registers an attestation: its account is the master of the next epoch, or renews its attestation if it is
/// the live master already. Anybody may send it in.
///
/// `document` comes from `sui::nitro_attestation::load_nitro_attestation` in the same transaction, which
/// verified its signature and certificates, and nothing else.
public fun register_master(
    registry: &mut Registry,
    document: NitroAttestationDocument,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.admit_master(
        pcr(&document, 0),
        pcr(&document, 3),
        *document.timestamp(),
        or_empty(document.public_key()),
        or_empty(document.user_data()),
        clock,
        ctx,
    );
}

use fun admit_master as Registry.admit_master;

/// `register_master` over the document's plain fields; `timestamp_ms` is its own time.
public(package) fun admit_master(
    registry: &mut Registry,
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    timestamp_ms: u64,
    public_key: vector<u8>,
    user_data: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    registry.assert_version();
    assert!(is_pcr(&pcr0) && is_pcr(&pcr3), EInvalidPcr);
    assert!(registry.images().contains(&Image { pcr0, pcr3 }), EImageNotAllowed);
    let now_ms = clock.timestamp_ms();
    assert!(
        timestamp_ms <= now_ms + MAX_SKEW_MS && now_ms <= timestamp_ms + MAX_AGE_MS,
        EAttestationNotFresh,
    );
    assert!(public_key.length() == KEY_BYTES, EInvalidPublicKey);
    let (account, binding) = read(object::id(registry), &user_data);

    let expires_at_ms = timestamp_ms.min(now_ms) + ATTESTATION_LIFETIME_MS;
    if (registry.live_key_is(account, &public_key)) {
        assert!(timestamp_ms > registry.master().borrow().attested_at_ms(), EPublicKeyUsed);
    } else {
        let used = PublicKeyKey(public_key);
        assert!(!field::exists_(registry.uid(), used), EPublicKeyUsed);
        field::add(registry.uid_mut(), used, true);
        let epoch = registry.install_master(account, ctx);
        event::emit(MasterAppointedEvent { registry: object::id(registry), epoch, account });
    };
    let id = object::id(registry);
    let master = registry.master_mut();
    master.attest(pcr0, pcr3, public_key, timestamp_ms, expires_at_ms, binding);
    event::emit(MasterAttestedEvent {
        registry: id,
        epoch: master.epoch(),
        account,
        public_key,
        pcr0,
        pcr3,
        attested_at_ms: timestamp_ms,
        expires_at_ms,
        chain_id: binding.chain_id(),
        ca_hash: binding.attested_ca_hash(),
        config_hash: binding.config_hash(),
    });
}

// === Getters ===

public fun is_image_allowed(registry: &Registry, pcr0: vector<u8>, pcr3: vector<u8>): bool {
    registry.images().contains(&Image { pcr0, pcr3 })
}

// === Private ===

fun images(registry: &Registry): VecSet<Image> {
    if (field::exists_(registry.uid(), ImagesKey())) *field::borrow(registry.uid(), ImagesKey())
    else vec_set::empty()
}

fun images_mut(registry: &mut Registry): &mut VecSet<Image> {
    if (!field::exists_(registry.uid(), ImagesKey())) {
        field::add(registry.uid_mut(), ImagesKey(), vec_set::empty<Image>());
    };
    field::borrow_mut(registry.uid_mut(), ImagesKey())
}

/// Whether the live master has this account and attested this key.
fun live_key_is(registry: &Registry, account: address, public_key: &vector<u8>): bool {
    let master = registry.master();
    if (master.is_none()) return false;
    let master = master.borrow();
    master.is_attested() && master.account() == account && master.public_key() == *public_key
}

fun void_master(registry: &mut Registry) {
    let master = registry.master().destroy_some();
    registry.remove_master();
    event::emit(MasterVoidedEvent {
        registry: object::id(registry),
        epoch: master.epoch(),
        account: master.account(),
    });
}

/// The account that `user_data` names for the registry of this id, and what it says of the rest.
fun read(registry: ID, user_data: &vector<u8>): (address, Binding) {
    let prefix = USER_DATA_PREFIX;
    let start = prefix.length();
    assert!(user_data.length() == start + PARTS * PART_BYTES, EUnexpectedUserData);
    assert!(slice(user_data, 0, start) == prefix, EUnexpectedUserData);
    let package = type_name::original_id<Registry>();
    assert!(part(user_data, 1) == address::to_bytes(package), EUnexpectedUserData);
    assert!(part(user_data, 2) == registry.to_bytes(), EUnexpectedUserData);
    let binding = master::bind(part(user_data, 0), part(user_data, 4), part(user_data, 5));
    (address::from_bytes(part(user_data, 3)), binding)
}

/// The part of `user_data` at this place after the prefix.
fun part(user_data: &vector<u8>, place: u64): vector<u8> {
    slice(user_data, USER_DATA_PREFIX.length() + place * PART_BYTES, PART_BYTES)
}

fun slice(bytes: &vector<u8>, start: u64, length: u64): vector<u8> {
    let mut found = vector[];
    let mut i = start;
    while (i < start + length) {
        found.push_back(bytes[i]);
        i = i + 1;
    };
    found
}

/// 48 bytes that are not all zero.
fun is_pcr(pcr: &vector<u8>): bool {
    if (pcr.length() != PCR_BYTES) return false;
    let mut i = 0;
    while (i < PCR_BYTES) {
        if (pcr[i] != 0) return true;
        i = i + 1;
    };
    false
}

/// PCRs come as (index, value) and not all of them: look the index up. Empty when it is not there.
fun pcr(document: &NitroAttestationDocument, index: u8): vector<u8> {
    let entries = document.pcrs();
    let mut i = 0;
    while (i < entries.length()) {
        if (entries[i].index() == index) return *entries[i].value();
        i = i + 1;
    };
    vector[]
}

fun or_empty(value: &Option<vector<u8>>): vector<u8> {
    if (value.is_some()) *value.borrow() else vector[]
}

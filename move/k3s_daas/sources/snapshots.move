/// Which sealed snapshot of the master's state is the newest.
///
/// A master that runs in an enclave keeps its state outside, sealed, where others may put back an older one. So
/// it anchors each snapshot here, by number and hash, and restores only the anchored one. Each goes on from the
/// one before: of two masters that were restored from the same snapshot one anchors the next, and the other
/// sees that it isn't the master any more. The chain of snapshots outlives the master's epoch: the next master
/// goes on where the last one ended.
///
/// Times in milliseconds of `sui::clock::Clock`.
module k3s_daas::snapshots;

use k3s_daas::worker_registry::{MasterCap, OperatorCap, Registry};
use sui::clock::Clock;
use sui::dynamic_field as field;
use sui::event;

use fun anchor as Registry.anchor;
use fun set_anchor as Registry.set_anchor;

// === Errors ===

#[error]
const EInvalidSnapshotHash: vector<u8> = b"A snapshot's hash is a SHA-256: 32 bytes";
#[error]
const ENotTheNextSnapshot: vector<u8> =
    b"Snapshots are anchored one after the other: wanted the number after the newest one's";
#[error]
const EOtherPreviousSnapshot: vector<u8> =
    b"The snapshot goes on from another than the newest: a second master was restored, or an old one came back";
#[error]
const ENothingToAbandon: vector<u8> = b"No snapshot is anchored";

// === Constants ===

const HASH_BYTES: u64 = 32;

// === Structs ===

/// The newest snapshot: the first has number 1. `hash` is the SHA-256 of the sealed file, empty once it was
/// abandoned; `epoch` is that of the master that anchored it.
public struct Anchor has copy, drop, store {
    counter: u64,
    hash: vector<u8>,
    epoch: u64,
    anchored_at_ms: u64,
}

/// Key of the registry's `Anchor`.
public struct AnchorKey() has copy, drop, store;

// === Events ===

public struct SnapshotAnchoredEvent has copy, drop {
    registry: ID,
    epoch: u64,
    counter: u64,
    hash: vector<u8>,
    anchored_at_ms: u64,
}

/// An operator gave the state up: nothing is restored from it any more.
public struct SnapshotsAbandonedEvent has copy, drop { registry: ID, counter: u64, hash: vector<u8> }

// === Public ===

/// Anchors the live master's next snapshot. `counter` is one more than the newest one's (1 for the first), and
/// `previous` its hash (empty for the first, and after one that was abandoned).
public fun anchor_snapshot(
    registry: &mut Registry,
    cap: &MasterCap,
    counter: u64,
    previous: vector<u8>,
    hash: vector<u8>,
    clock: &Clock,
) {
    registry.assert_version();
    registry.assert_master(cap, clock);
    assert!(hash.length() == HASH_BYTES, EInvalidSnapshotHash);
    let newest = registry.anchor();
    let (last, last_hash) =
        if (newest.is_some()) (newest.borrow().counter, newest.borrow().hash) else (0, vector[]);
    assert!(counter == last + 1, ENotTheNextSnapshot);
    assert!(previous == last_hash, EOtherPreviousSnapshot);
    let epoch = registry.master().borrow().epoch();
    let anchored_at_ms = clock.timestamp_ms();
    registry.set_anchor(Anchor { counter, hash, epoch, anchored_at_ms });
    event::emit(SnapshotAnchoredEvent { registry: object::id(registry), epoch, counter, hash, anchored_at_ms });
}

/// Gives up the newest snapshot, because it is lost: the next master begins with a new cluster. The number
/// stays, so that no older snapshot counts again.
public fun abandon_snapshots(registry: &mut Registry, cap: &OperatorCap) {
    registry.assert_version();
    registry.assert_operator(cap);
    let newest = registry.anchor();
    assert!(newest.is_some() && !newest.borrow().hash.is_empty(), ENothingToAbandon);
    let Anchor { counter, hash, epoch, anchored_at_ms } = newest.destroy_some();
    registry.set_anchor(Anchor { counter, hash: vector[], epoch, anchored_at_ms });
    event::emit(SnapshotsAbandonedEvent { registry: object::id(registry), counter, hash });
}

// === Getters ===

/// None until the first snapshot.
public fun anchor(registry: &Registry): Option<Anchor> {
    if (field::exists_(registry.uid(), AnchorKey())) option::some(*field::borrow(registry.uid(), AnchorKey()))
    else option::none()
}

// === Private ===

fun set_anchor(registry: &mut Registry, anchor: Anchor) {
    if (field::exists_(registry.uid(), AnchorKey())) {
        *field::borrow_mut(registry.uid_mut(), AnchorKey()) = anchor;
    } else {
        field::add(registry.uid_mut(), AnchorKey(), anchor);
    };
}

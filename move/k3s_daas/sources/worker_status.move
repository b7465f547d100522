/// Where a worker is in its life.
module k3s_daas::worker_status;

use std::string::String;

#[error]
const EUnknownStatus: vector<u8> = b"A master sets only the statuses active, busy and offline";

public enum Status has copy, drop, store {
    /// Staked, not joined yet.
    Pending,
    Active,
    /// Active, at its concurrency limit.
    Busy,
    /// No heartbeat; never a reason for a slash.
    Offline,
    /// A slash is proposed: the stake is locked.
    Jailed,
    /// Final.
    Slashed,
    /// Leaving.
    Unbonding,
}

/// Lower-case name of a status, as `worker_registry::set_worker_statuses` takes it.
public fun status_name(status: &Status): String {
    let name = match (status) {
        Status::Pending => b"pending",
        Status::Active => b"active",
        Status::Busy => b"busy",
        Status::Offline => b"offline",
        Status::Jailed => b"jailed",
        Status::Slashed => b"slashed",
        Status::Unbonding => b"unbonding",
    };
    name.to_string()
}

public fun is_active(status: &Status): bool { *status == Status::Active }

public fun is_busy(status: &Status): bool { *status == Status::Busy }

public fun is_jailed(status: &Status): bool { *status == Status::Jailed }

public fun is_slashed(status: &Status): bool { *status == Status::Slashed }

public fun is_unbonding(status: &Status): bool { *status == Status::Unbonding }

/// Neither jailed nor slashed nor leaving: pending, active, busy or offline.
public fun is_in_service(status: &Status): bool {
    !status.is_jailed() && !status.is_slashed() && !status.is_unbonding()
}

public(package) fun pending(): Status { Status::Pending }

public(package) fun jailed(): Status { Status::Jailed }

public(package) fun slashed(): Status { Status::Slashed }

public(package) fun unbonding(): Status { Status::Unbonding }

/// The status of this name, if a master may set it.
public(package) fun settable(name: &String): Status {
    let name = *name.as_bytes();
    if (name == b"active") Status::Active
    else if (name == b"busy") Status::Busy
    else if (name == b"offline") Status::Offline
    else abort EUnknownStatus
}

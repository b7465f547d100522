/// The record of the one live master. Who becomes it is `nautilus`' business, what it announces `k8s_gateway`'s.
/// Times in milliseconds of `sui::clock::Clock`.
module k3s_daas::master;

use std::string::String;

/// `endpoint`, `api_server` and `ca_hash` are empty until the master announces itself; a master without
/// attestation has empty PCRs and an empty binding, zeros as attestation times, and the public key that it
/// announced, if any.
public struct Master has copy, drop, store {
    epoch: u64,
    account: address,
    endpoint: String,
    api_server: String,
    /// SHA-256 that pins the cluster's CA, as k3s computes it.
    ca_hash: vector<u8>,
    announced_at_ms: u64,
    /// Ed25519 key that was made inside the enclave, 32 bytes; the attestation's, where there is one.
    public_key: vector<u8>,
    /// The image and the parent's IAM role that the attestation proved, 48 bytes each.
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    /// The attestation document's own time.
    attested_at_ms: u64,
    /// From then on the MasterCap is void, until a newer attestation is registered.
    attestation_expires_at_ms: u64,
    binding: Binding,
}

/// What the attestation says beside who the master is, 32 bytes each.
public struct Binding has copy, drop, store {
    /// Digest of the first checkpoint of the chain that the master follows.
    chain_id: vector<u8>,
    /// The CA that it has; the only one that it can announce.
    ca_hash: vector<u8>,
    /// SHA-256 of the configuration that it was given, which no PCR measures.
    config_hash: vector<u8>,
}

public(package) fun new(epoch: u64, account: address): Master {
    Master {
        epoch,
        account,
        endpoint: b"".to_string(),
        api_server: b"".to_string(),
        ca_hash: vector[],
        announced_at_ms: 0,
        public_key: vector[],
        pcr0: vector[],
        pcr3: vector[],
        attested_at_ms: 0,
        attestation_expires_at_ms: 0,
        binding: bind(vector[], vector[], vector[]),
    }
}

public(package) fun bind(chain_id: vector<u8>, ca_hash: vector<u8>, config_hash: vector<u8>): Binding {
    Binding { chain_id, ca_hash, config_hash }
}

public fun epoch(master: &Master): u64 { master.epoch }

public fun account(master: &Master): address { master.account }

public fun endpoint(master: &Master): String { master.endpoint }

public fun api_server(master: &Master): String { master.api_server }

public fun ca_hash(master: &Master): vector<u8> { master.ca_hash }

public fun public_key(master: &Master): vector<u8> { master.public_key }

public fun pcr0(master: &Master): vector<u8> { master.pcr0 }

public fun pcr3(master: &Master): vector<u8> { master.pcr3 }

public fun attested_at_ms(master: &Master): u64 { master.attested_at_ms }

/// 0 for a master without attestation.
public fun attestation_expires_at_ms(master: &Master): u64 { master.attestation_expires_at_ms }

public fun binding(master: &Master): Binding { master.binding }

public fun chain_id(binding: &Binding): vector<u8> { binding.chain_id }

public fun attested_ca_hash(binding: &Binding): vector<u8> { binding.ca_hash }

public fun config_hash(binding: &Binding): vector<u8> { binding.config_hash }

public fun is_attested(master: &Master): bool { master.attestation_expires_at_ms > 0 }

/// Whether its attestation is over. A master without one has nothing that could expire.
public fun is_expired(master: &Master, now_ms: u64): bool {
    master.is_attested() && now_ms >= master.attestation_expires_at_ms
}

public(package) fun announce(
    master: &mut Master,
    endpoint: String,
    api_server: String,
    ca_hash: vector<u8>,
    now_ms: u64,
) {
    master.endpoint = endpoint;
    master.api_server = api_server;
    master.ca_hash = ca_hash;
    master.announced_at_ms = now_ms;
}

public(package) fun set_public_key(master: &mut Master, public_key: vector<u8>) {
    master.public_key = public_key;
}

public(package) fun attest(
    master: &mut Master,
    pcr0: vector<u8>,
    pcr3: vector<u8>,
    public_key: vector<u8>,
    attested_at_ms: u64,
    expires_at_ms: u64,
    binding: Binding,
) {
    master.pcr0 = pcr0;
    master.pcr3 = pcr3;
    master.public_key = public_key;
    master.attested_at_ms = attested_at_ms;
    master.attestation_expires_at_ms = expires_at_ms;
    master.binding = binding;
}

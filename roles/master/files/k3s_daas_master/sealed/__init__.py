"""Sealed state: what a master is made of, encrypted for the place where it can't be kept in the clear.

    snapshot    one sealed snapshot: its form, what it is bound to, its hash
    keys        who wraps its data key: a file (simulated), or AWS KMS for an attested enclave (kms)
    store       where snapshots lie: a directory of the parent's, which may lie
    choose      which of them may be restored, by the chain's word
    take, put_back   root's half: copy and seal what is running; have it in place again
    sealer      the service's half: when, and the anchor on-chain

What is in a snapshot is a backup's content (`backups`). docs/sealed-state.md has threat and residual risk.
"""

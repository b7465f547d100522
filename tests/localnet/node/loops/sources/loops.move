/// Functions that never end by themselves.
module loops::loops;

use sui::dynamic_field;
use sui::ecdsa_k1;
use sui::event;
use sui::hash;

public struct Told has copy, drop { a: u64 }

public fun fine(): u64 { 1 }

public fun spin() { loop {} }

public fun count() {
    let mut i = 0u64;
    loop { i = (i + 1) % 1000003 }
}

public fun push() {
    let mut v = vector[];
    loop { v.push_back(7u256) }
}

public fun nest() {
    let mut v = vector<vector<u64>>[];
    loop {
        v.push_back(vector[]);
        if (v.length() > 200000) v = vector[];
    }
}

public fun copies() {
    let mut v = vector[1u64];
    loop { let w = v; v.append(w) }
}

public fun bytes() {
    let mut v = b"x";
    loop {
        let w = v;
        v.append(w);
        if (v.length() > 100000) v = b"x";
    }
}

public fun recurse() { recurse() }

public fun ping(): u64 { pong() + 1 }

public fun pong(): u64 { ping() + 1 }

public fun keccak() {
    let v = some(1000);
    loop { hash::keccak256(&v); }
}

public fun recover() {
    let mut v = some(64);
    v.push_back(0);
    loop { ecdsa_k1::secp256k1_ecrecover(&v, &v, 1); }
}

public fun serialize() {
    let v = some(1000);
    loop { std::bcs::to_bytes(&v); }
}

public fun fields(ctx: &mut TxContext) {
    let mut id = object::new(ctx);
    let mut i = 0u64;
    while (i < 1000000000) {
        dynamic_field::add(&mut id, i, i);
        i = i + 1;
    };
    id.delete();
}

public fun events() { loop { event::emit(Told { a: 1 }) } }

fun some(count: u64): vector<u8> {
    let mut v = vector[];
    while (v.length() < count) v.push_back(2);
    v
}

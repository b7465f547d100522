/// One function per rule that the network has to enforce.
module probe::probe;

use std::string::String;
use sui::clock::Clock;
use sui::dynamic_field as field;
use sui::dynamic_object_field as object_field;
use sui::event;
use sui::table::{Self, Table};
use sui::transfer::Receiving;

#[error]
const ERefused: vector<u8> = b"the probe was told to refuse";

public struct PROBE has drop {}
public struct Board has key { id: UID, count: u64, notes: Table<u64, String> }
public struct Soul has key { id: UID }
public struct Thing has key, store { id: UID, value: u64, chunks: vector<vector<u8>> }
public struct Box<T: key + store> has key, store { id: UID, content: T }
public struct Potato {}
public struct Told has copy, drop { board: ID, count: u64, who: address }

fun init(_: PROBE, ctx: &mut TxContext) {
    transfer::share_object(Board { id: object::new(ctx), count: 0, notes: table::new(ctx) });
    transfer::transfer(Soul { id: object::new(ctx) }, ctx.sender());
}

// --- things
public fun thing(value: u64, ctx: &mut TxContext): Thing {
    Thing { id: object::new(ctx), value, chunks: vector[] }
}

public fun set(thing: &mut Thing, value: u64) { thing.value = value }

public fun value(thing: &Thing): u64 { thing.value }

public fun peek(thing: &Thing): &u64 { &thing.value }

public fun burn(thing: Thing) {
    let Thing { id, .. } = thing;
    id.delete();
}

public fun add(to: &mut Thing, from: &mut Thing) { to.value = to.value + from.value }

public fun grow(thing: &mut Thing, chunk: vector<u8>, times: u64) {
    let mut i = 0;
    while (i < times) { thing.chunks.push_back(chunk); i = i + 1 };
}

public fun wrap<T: key + store>(content: T, ctx: &mut TxContext): Box<T> { Box { id: object::new(ctx), content } }

public fun unwrap<T: key + store>(box: Box<T>): T {
    let Box { id, content } = box;
    id.delete();
    content
}

public fun potato(): Potato { Potato {} }

public fun eat(potato: Potato) { let Potato {} = potato; }

public fun give_soul(soul: Soul, to: address) { transfer::transfer(soul, to) }

// --- the shared board
public fun bump(board: &mut Board, ctx: &TxContext) {
    board.count = board.count + 1;
    event::emit(Told { board: object::id(board), count: board.count, who: ctx.sender() });
}

public fun count(board: &Board): u64 { board.count }

public fun note(board: &mut Board, key: u64, text: String) { board.notes.add(key, text) }

public fun attach(board: &mut Board, name: u64, thing: Thing) { object_field::add(&mut board.id, name, thing) }

public fun detach(board: &mut Board, name: u64): Thing { object_field::remove(&mut board.id, name) }

public fun mark(board: &mut Board, first: u64, many: u64) {
    let mut i = 0;
    while (i < many) { field::add(&mut board.id, first + i, i); i = i + 1 };
}

public fun sum_marks(board: &Board, first: u64, many: u64): u64 {
    let (mut i, mut sum) = (0, 0);
    while (i < many) { sum = sum + *field::borrow(&board.id, first + i); i = i + 1 };
    sum
}

public fun give_away(board: Board, to: address) { transfer::transfer(board, to) }

public fun freeze_it(board: Board) { transfer::freeze_object(board) }

public fun share_again(board: Board) { transfer::share_object(board) }

public fun new_board(ctx: &mut TxContext): Board { Board { id: object::new(ctx), count: 0, notes: table::new(ctx) } }

public fun share_thing(thing: Thing) { transfer::public_share_object(thing) }

public fun freeze_thing(thing: Thing) { transfer::public_freeze_object(thing) }

public fun accept(board: &mut Board, thing: Receiving<Thing>): Thing {
    transfer::public_receive(&mut board.id, thing)
}

// --- limits, aborts, arguments
public fun tell(board: &Board, times: u64, ctx: &TxContext) {
    let mut i = 0;
    while (i < times) {
        event::emit(Told { board: object::id(board), count: i, who: ctx.sender() });
        i = i + 1
    };
}

public fun ids(many: u64, ctx: &mut TxContext) {
    let mut i = 0;
    while (i < many) { object::new(ctx).delete(); i = i + 1 };
}

public fun scatter(many: u64, ctx: &mut TxContext) {
    let mut i = 0;
    while (i < many) { transfer::public_transfer(thing(i, ctx), ctx.sender()); i = i + 1 };
}

public fun refuse() { abort ERefused }

public fun refuse_with(code: u64) { abort code }

public fun spin() { loop {} }

public fun divide(a: u64, b: u64): u64 { a / b }

public fun echo(text: String): String { text }

public fun length(bytes: vector<u8>): u64 { bytes.length() }

public fun now(clock: &Clock): u64 { clock.timestamp_ms() }

public fun set_clock(_: &mut Clock) {}

public fun generic<T: copy + drop>(_: T) {}

fun secret() {}

entry fun door(board: &mut Board) { board.count = board.count + 100; secret() }

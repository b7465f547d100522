// What the framework's bytecode can't tell: method aliases and the commonest macros, added to the stub of the
// module that a section names. Not a module itself; read by stubs.py.

// === std::vector ===
public use fun std::string::utf8 as vector.to_string;
public use fun std::string::try_utf8 as vector.try_to_string;
public use fun std::ascii::string as vector.to_ascii_string;
public use fun std::ascii::try_string as vector.try_to_ascii_string;

/// Calls `$f` with each element, in order.
public macro fun do<$T, $R: drop>($v: vector<$T>, $f: |$T| -> $R) {
    let mut rest = $v;
    rest.reverse();
    while (!rest.is_empty()) { $f(rest.pop_back()); };
    rest.destroy_empty();
}

/// Calls `$f` with a reference to each element, in order.
public macro fun do_ref<$T, $R: drop>($v: &vector<$T>, $f: |&$T| -> $R) {
    let v = $v;
    let mut i = 0;
    let length = v.length();
    while (i < length) { $f(&v[i]); i = i + 1; }
}

// === std::ascii ===
public use fun std::string::from_ascii as String.to_string;

// === std::u64 ===
/// Calls `$f` with 0 to `$stop` - 1.
public macro fun do<$R: drop>($stop: u64, $f: |u64| -> $R) {
    let mut i = 0;
    let stop = $stop;
    while (i < stop) { $f(i); i = i + 1; }
}

// === std::option ===
/// Calls `$f` with a reference to the value, if there is one.
public macro fun do_ref<$T, $R: drop>($o: &Option<$T>, $f: |&$T| -> $R) {
    let o = $o;
    if (o.is_some()) { $f(o.borrow()); }
}

// === sui::balance ===
public use fun sui::coin::from_balance as Balance.into_coin;

// === sui::object ===
public use fun id_to_address as ID.to_address;
public use fun id_to_bytes as ID.to_bytes;
public use fun uid_as_inner as UID.as_inner;
public use fun uid_to_inner as UID.to_inner;
public use fun uid_to_address as UID.to_address;
public use fun uid_to_bytes as UID.to_bytes;

/// How wallets show a StakeProof. Publisher and Display go to whoever publishes the package.
module k3s_daas::stake_proof_display;

use k3s_daas::worker_registry::StakeProof;
use sui::display;
use sui::package;

public struct STAKE_PROOF_DISPLAY has drop {}

#[allow(lint(self_transfer, share_owned))]
fun init(witness: STAKE_PROOF_DISPLAY, ctx: &mut TxContext) {
    let publisher = package::claim(witness, ctx);
    let fields = vector[
        b"name".to_string(),
        b"description".to_string(),
        b"node_id".to_string(),
        b"registry".to_string(),
        b"owner".to_string(),
    ];
    let values = vector[
        b"K3s-DaaS stake of {node_id}".to_string(),
        b"Shows that SUI was staked for the worker {node_id}. It can't be sold or sent, and it counts only while the registry names it.".to_string(),
        b"{node_id}".to_string(),
        b"{registry}".to_string(),
        b"{owner}".to_string(),
    ];
    let mut display = display::new_with_fields<StakeProof>(&publisher, fields, values, ctx);
    display.update_version();
    transfer::public_transfer(display, ctx.sender());
    transfer::public_transfer(publisher, ctx.sender());
}

"""sui.rpc.v2 over the ledger, with the message classes that pysui ships."""

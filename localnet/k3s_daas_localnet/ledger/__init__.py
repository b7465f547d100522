"""The chain itself: objects, transactions, limits, gas, checkpoints and their storage."""

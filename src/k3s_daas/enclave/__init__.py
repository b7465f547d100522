"""What runs inside the master's enclave at its start, before k3s and the master's service.

The image holds everything that has to be trusted, and is the same for every cluster. What is a cluster's own
comes from the parent, which nobody trusts: `cluster` says what that may be, `configure` writes it down.
"""

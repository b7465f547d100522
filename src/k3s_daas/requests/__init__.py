"""Requests to the fleet: what one says, what may run, and how an owner hands one in and checks its result."""

"""The one exception callers see."""


class HostsError(Exception):
    """Says what was found, what was wanted and what to do."""

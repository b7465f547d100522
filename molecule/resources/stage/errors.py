"""The one error of a stage."""


class StageError(Exception):
    """What was found, what was wanted, what to do."""

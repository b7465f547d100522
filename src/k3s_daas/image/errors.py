"""The one error of building an image."""


class ImageError(Exception):
    """What was found, what was wanted, what to do."""

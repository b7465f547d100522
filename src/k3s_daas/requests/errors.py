"""The one error of an owner's requests; apart from the client, which takes a third of a second to import."""


class RequestError(Exception):
    """Something between an owner and its request; the message says what was found and what to do."""

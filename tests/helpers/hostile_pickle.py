"""A pickle that runs code."""


class Run:
    """Calls ``function`` when its pickle is read without restrictions."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

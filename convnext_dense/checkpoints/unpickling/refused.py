"""What the machine raises when a file asks for more than data."""

import pickle


class Refused(pickle.UnpicklingError):
    """The file asks for something that is not data; ``str`` of this says for what."""


class WholeModel(Refused):
    """The file is a model with its code, not its weights; ``str`` is its class."""


class TooMuch(pickle.UnpicklingError):
    """The file asks for more memory or time than its size explains."""


class Damaged(pickle.UnpicklingError):
    """The file contradicts itself or is cut short; ``str`` of this says where."""

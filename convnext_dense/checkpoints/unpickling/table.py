"""What the machine and the table of what a pickle may ask for have in common."""

from typing import Any, Protocol

from .limits import Limits


class Unbuilt:
    """An object whose state the instruction BUILD still brings.

    Attributes:
        index: under which the machine remembers it; None if it does not.
    """

    index: int | None = None

    def build(self, state: Any) -> Any:
        """The object with this state; it takes the place of ``self``."""
        raise NotImplementedError


class Table(Protocol):
    """What a pickle may ask for."""

    def constant(self, name: str) -> Any:
        """The value of this name, such as a dtype; a ``Named`` if it is to be called,
        and an ``Unknown`` if what it makes is left out.

        Raises:
            Refused: no checkpoint needs it.
        """

    def call(self, name: str, arguments: tuple, limits: Limits) -> Any:
        """The object that the class or function ``name`` would return.

        Raises:
            Refused: the arguments are not those of data.
        """

    def change(self, value: object, state: Any) -> None:
        """Give an object that is complete a further state.

        Raises:
            Refused: it takes none.
        """

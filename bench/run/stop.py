"""Being asked to end, so that training between two steps loses nothing."""

from __future__ import annotations

from types import FrameType


class Stop:
    """A request to end this process, and when it may interrupt.

    While a run trains, the request waits for the end of the step, which the checkpoint then holds.
    Anywhere else (rendering, measuring) it interrupts at once, as Ctrl-C does: what was there
    before is on the disk.
    """

    def __init__(self) -> None:
        self._asked = False
        self._waits = False

    def asked(self) -> bool:
        return self._asked

    def defer(self) -> None:
        """From here on a request waits until `asked` is looked at."""
        self._waits = True

    def interrupt_at_once(self) -> None:
        """From here on a request interrupts at once.

        Raises:
            KeyboardInterrupt: the request came before.
        """
        self._waits = False
        if self._asked:
            raise KeyboardInterrupt

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """A handler for the signals that ask; the first one counts."""
        first, self._asked = not self._asked, True
        if first and not self._waits:
            raise KeyboardInterrupt

"""Progress: one line on a terminal for every notebook that runs, below the lines that stay.

07_asc: cell 9 of 21, The vote, 0:48 of about 1:50
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO

UP, CLEAR = "\x1b[{}A\r", "\x1b[J"  # go up so many lines; clear from here to the end of the screen


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """Lines that are drawn anew whenever something changes; safe to call from several threads.

    stays   takes the lines that stay
    moves   a terminal, for the lines that are drawn over; None: only those that stay are written
    likely  seconds that a notebook takes, by name, where that is known
    """

    def __init__(
        self, stays: Callable[[str], None], moves: TextIO | None, likely: Mapping[str, float]
    ) -> None:
        self.stays, self.moves, self.likely = stays, moves, likely
        self.places: dict[str, str] = {}
        self.began: dict[str, float] = {}
        self.drawn = 0
        self.lock = threading.Lock()

    def say(self, line: str) -> None:
        """Print a line above the others."""
        with self.lock:
            self._wipe()
            self.stays(line)
            self._draw()

    def at(self, name: str, place: str) -> None:
        """A notebook is at another place."""
        with self.lock:
            self.places[name] = place
            self.began.setdefault(name, time.monotonic())
        self.tick()

    def ended(self, name: str) -> None:
        """A notebook is not running any more."""
        with self.lock:
            self.places.pop(name, None)
        self.tick()

    def tick(self) -> None:
        """Draw the lines anew, for their clocks."""
        with self.lock:
            self._wipe()
            self._draw()

    def line(self, name: str) -> str:
        """What is said of a notebook now."""
        took, likely = time.monotonic() - self.began[name], self.likely.get(name)
        about = "" if likely is None else f" of about {clock(likely)}"
        return f"{name}: {self.places[name]}, {clock(took)}{about}"

    def _wipe(self) -> None:
        if self.drawn:
            self.moves.write(UP.format(self.drawn) + CLEAR)
            self.moves.flush()
        self.drawn = 0

    def _draw(self) -> None:
        if self.moves is None:
            return
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be wiped
        lines = [self.line(name)[:width] for name in sorted(self.places)]
        self.moves.write("".join(f"{line}\n" for line in lines))
        self.moves.flush()
        self.drawn = len(lines)

"""A signal that asks training to end at a step's end, so that it can be saved."""

from __future__ import annotations

import signal


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag while it is entered; a second signal acts as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # signals can only be handled in the main thread
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: object) -> None:
        self.signal = number
        self.__exit__()

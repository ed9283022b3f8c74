"""What the demo prints: the progress of loading and the answers to questions, and what was wrong with them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

Answer = TypeVar("Answer")
BAR_CELLS = 30


class Progress:
    """A bar on a terminal; elsewhere a line for every tenth."""

    def __init__(self, total: int) -> None:
        self._total, self._start, self._tenths = total, time.perf_counter(), 0

    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._start

    def at(self, done: int) -> None:
        """Shows that `done` records are loaded."""
        share = done / self._total
        cells = int(share * BAR_CELLS)
        rate = done / max(self.seconds(), 1e-9)
        bar = f"  [{'#' * cells}{'.' * (BAR_CELLS - cells)}] {done:,} of {self._total:,}"
        bar += f"  {rate:,.0f} records/s  {self.seconds():.1f} s"
        if sys.stderr.isatty():
            print(f"\r{bar}\033[K", end="\n" if done == self._total else "", file=sys.stderr, flush=True)
        elif int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            print(bar, file=sys.stderr, flush=True)


class Report:
    """Prints questions and answers as they come; remembers times and failed checks."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self.checks = 0
        self.failures: list[str] = []
        self._width = shutil.get_terminal_size((120, 24)).columns

    def ask(self, question: str, call: Callable[[], Answer]) -> Answer:
        """Prints the question and how long `call` took to answer it."""
        start = time.perf_counter()
        answer = call()
        self.times_ms.append((time.perf_counter() - start) * 1000)
        print(f"\n{question}  ({self.times_ms[-1]:.1f} ms)", flush=True)
        return answer

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The last column gets what is left of the line."""
        lines = [list(header), *([" ".join(cell.split()) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for line in lines:
            text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print(f"   {text}"[: self._width].rstrip())

    def check(self, fact: str, holds: bool) -> None:
        """Prints the fact; if it does not hold, the demo will fail."""
        self.checks += 1
        if not holds:
            self.failures.append(fact)
        print(f"   {'ok' if holds else 'WRONG'}: {fact}", flush=True)

    def times(self) -> str:
        """The usual and the longest time of the questions so far."""
        return f"median {median(self.times_ms):.1f} ms, longest {max(self.times_ms):.1f} ms"

"""How much a sheet may hold, and what reading one within that may take."""

from __future__ import annotations

from dataclasses import dataclass

_BASE_MEMORY = 300_000_000  # address space of the program itself, libraries included
_CELL_MEMORY = 110  # a cell while calamine gathers it, and its place in the rectangle


@dataclass(frozen=True)
class Bounds:
    """What a file may be at most. ``rows`` counts those that hold something; ``cells`` all cells, also the empty ones
    up to a sheet's last row and column."""

    file_bytes: int
    unpacked_bytes: int
    rows: int
    cells: int
    columns: int = 256

    @property
    def memory(self) -> int:
        """Bytes of address space that reading takes at most. Measured: a text costs twice its length."""
        return _BASE_MEMORY + 3 * self.unpacked_bytes + _CELL_MEMORY * self.cells

    @property
    def seconds(self) -> int:
        """Seconds of processor time: some three times what was measured on a slow machine."""
        return 5 + self.unpacked_bytes // 10_000_000 + self.cells // 100_000

    @property
    def spool_bytes(self) -> int:
        """Bytes that the rows may be as JSON. A shared text is written once for each cell that has it."""
        return 2 * self.unpacked_bytes

"""The log of a run: a CSV table, and TensorBoard's files when they are asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from restore.errors import MissingExtraError, install_command


class TrainLog:
    """Rows of numbers by name, appended as they come."""

    def __init__(
        self, folder: Path, columns: Sequence[str], *, after: int, tensorboard: bool
    ) -> None:
        """Open the log.

        Args:
            folder: folder of the run; the table is `log.csv` in it.
            columns: names; the first is `iteration`.
            after: rows up to this iteration stay; what came after the last checkpoint is done
                again.
            tensorboard: write for TensorBoard as well.

        Raises:
            MissingExtraError: TensorBoard is asked for and not installed.
        """
        self.columns = tuple(columns)
        path = folder / "log.csv"
        kept = _rows(path, up_to=after) if after else []
        self._board = _summary_writer(folder / "tensorboard", after) if tensorboard else None
        temporary = path.with_name(path.name + ".tmp")  # a kill must not lose the rows so far
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(kept)
        temporary.replace(path)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._table = csv.DictWriter(self._file, self.columns, extrasaction="ignore")

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def row(self, iteration: int, values: Mapping[str, float]) -> None:
        """Write one line; a column without a value stays empty."""
        cells = {name: f"{value:.6g}" for name, value in values.items()}
        self._table.writerow({"iteration": iteration, **cells})
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name.replace(".", "/"), value, iteration)
            self._board.flush()


def _rows(path: Path, *, up_to: int) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row["iteration"] or "").isdigit() and row_number(row) <= up_to]


def row_number(row: Mapping[str, str]) -> int:
    """The iteration of a row."""
    return int(row["iteration"])


def _summary_writer(folder: Path, after: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            f"'tensorboard: true' needs TensorBoard; {install_command('train')}, or take it out"
        ) from error
    return SummaryWriter(str(folder), purge_step=after + 1)

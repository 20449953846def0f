"""What Excel does to numbers and dates: damaged ids are told, never mended; bare date serials become dates.

Excel keeps 15 digits of a number and drops leading zeros: an 18-digit id turns into 1.10105E+17 or ends in 000, and
patient 0012345 into 12345. Which patient it was cannot be known again.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from xinglin.records import InputError

SCIENTIFIC = re.compile(r"\d(?:\.\d+)?[Ee]\+\d{1,2}")
SERIAL = re.compile(r"(\d{5})(?:\.\d+)?")
EXACT = 10**15  # Excel keeps 15 digits
FIRST_DAY, LAST_DAY = 18_264, 73_050  # 1950-01-01 and 2099-12-31 as serials
DAY_ZERO = datetime.date(1899, 12, 30)  # serial 45047 is 2023-05-01 (ECMA-376 part 1, 18.17.4.1, the 1900 system)
ID_ROLES = {"id_card", "mrn", "phone", "bank_card", "insurance", "passport"}
ZEROS_IN_A_ROW = 3


class IdCheck:
    """Looks at every value of the id columns; remembers how many id cards in a row end in 000."""

    def __init__(self, place: str, width: int, exact: bool = False) -> None:
        self.place, self.width = place, width
        self.exact = exact  # numbers of a database are not Excel's
        self.zeros: dict[str, int] = {}

    def __call__(self, row: int, column: str, value: Any, text: str, role: str, patient: bool) -> None:
        """Raises `InputError` at the first value that Excel damaged."""
        if SCIENTIFIC.fullmatch(text) or (type(value) in (int, float) and abs(value) >= EXACT and not self.exact):
            raise self._damaged(row, column, "a number of over 15 digits was rounded")
        if patient and text.isdigit() and 0 < len(text) < self.width:
            words = f"{len(text)} digits where id_width says {self.width}: leading zeros were lost"
            raise self._damaged(row, column, words)
        if role == "id_card" and len(text) in (16, 17) and text.isdigit():
            raise self._damaged(row, column, f"an id of {len(text)} digits")
        if role == "id_card" and len(text) == 18:
            self.zeros[column] = self.zeros.get(column, 0) + 1 if text.endswith("000") else 0
            if self.zeros[column] == ZEROS_IN_A_ROW:
                raise self._damaged(row, column, f"{ZEROS_IN_A_ROW} ids in a row end in 000")

    def _damaged(self, row: int, column: str, words: str) -> InputError:
        return InputError(
            f"{self.place}:{row}: IDs were damaged by Excel: column {column!r}, {words}; nothing is guessed: export "
            "the column as text from the source system (or set id_width: 0 where ids have no fixed width)"
        )


def date_of_serial(text: str) -> str:
    """The ISO date of a bare Excel serial such as 45047, "" for anything else."""
    match = SERIAL.fullmatch(text)
    if not match or not FIRST_DAY <= int(match[1]) <= LAST_DAY:
        return ""
    return (DAY_ZERO + datetime.timedelta(days=int(match[1]))).isoformat()

"""Who records which cassette, among all processes of one test run: each has one test that does."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one run.

    Attributes:
        directory: where they are; all its processes share it. It is made when it is needed.
    """

    directory: str

    def take(self, path: str, owner: str) -> str:
        """Claim a cassette; whose it is then."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        claim = self._claim(path)
        try:
            with open(claim, "x", encoding="utf-8", errors="surrogateescape") as file:
                file.write(owner)
            return owner
        except FileExistsError:
            with open(claim, encoding="utf-8", errors="surrogateescape") as file:
                return file.read() or "another test"

    def give_up(self, path: str) -> None:
        """It is not recorded after all."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._claim(path))

    def _claim(self, path: str) -> str:
        whole = os.fsencode(os.path.realpath(path))
        return f"{self.directory}/{hashlib.sha256(whole).hexdigest()}"

"""Many centres, one job: which member watches which series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from alerts.central.promread import Labels


@dataclass(frozen=True, slots=True)
class Shard:
    """Member `member` (from 0) of `members`; each series is watched by `replication` of them.

    Members share nothing: each decides by the hash of a series' labels alone. What replicas say twice is made one
    by the rules, which aggregate `instance` away.
    """

    member: int = 0
    members: int = 1
    replication: int = 1

    def mine(self, labels: Labels) -> bool:
        """Whether this member watches the series."""
        if self.members <= self.replication:
            return True
        text = "\x00".join(f"{key}\x01{value}" for key, value in labels)
        owner = int.from_bytes(hashlib.blake2s(text.encode(), digest_size=8).digest(), "big") % self.members
        return (self.member - owner) % self.members < self.replication

"""A bound on what all streams together keep in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Bytes that may be held at a time; who asks for more waits until others have given back."""

    def __init__(self, total: int) -> None:
        self.total = self._left = total
        self._given = asyncio.Condition()

    @asynccontextmanager
    async def share(self) -> AsyncIterator[Share]:
        """Yield one holder's `Share`; what it still holds at the end is given back."""
        share = Share(self)
        try:
            yield share
        finally:
            await share.give(share.held)

    async def take(self, amount: int) -> None:
        """Wait until there is so much, and take it."""
        async with self._given:
            await self._given.wait_for(lambda: self._left >= amount)
            self._left -= amount

    async def give(self, amount: int) -> None:
        """Give back."""
        async with self._given:
            self._left += amount
            self._given.notify_all()


class Share:
    """What one holder has of a `Budget`."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.held = budget, 0

    async def take(self, amount: int) -> int:
        """Return how much was taken, as soon as there is so much: `amount`, or all there is where that is less."""
        amount = min(amount, self._budget.total)
        await self._budget.take(amount)
        self.held += amount
        return amount

    async def give(self, amount: int) -> None:
        """Give back."""
        self.held -= amount
        await self._budget.give(amount)

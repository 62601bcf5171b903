"""A model that the service offers, and fetches and opens only when somebody asks for it."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from keras_matting.errors import MattingError, UsageError, WeightsError
from keras_matting.model_folder import Preset, find_model_dir

from . import observability
from .problems import ProblemError
from .served_model import ServedModel
from .settings import ServiceSettings

_ASK_AGAIN_S = 3  # while it is being got ready: a moment if it is exported, longer if it has to be fetched
_TRY_AGAIN_S = 15  # after it could not be


class OnDemandModel(ServedModel):
    """As `ServedModel`, with two more states: "on_demand" until somebody asks, "unavailable" if it cannot be opened."""

    def __init__(self, model: str, settings: ServiceSettings, observe: Callable[[str, int, float], object]) -> None:
        super().__init__(model, settings, observe)
        self.state = "on_demand"
        self._opening: asyncio.Task[None] | None = None
        self._reason: MattingError | None = None
        self._try_again_at = 0.0
        with suppress(UsageError):  # told when it is asked for
            if model_dir := find_model_dir(model):
                self.name = Preset.load(model_dir).name

    def want(self) -> None:
        """Begin to fetch and open it, unless that is under way or done, or has failed just now."""
        if self.state == "on_demand" or (self.state == "unavailable" and time.monotonic() >= self._try_again_at):
            self.state = "loading"
            self._opening = asyncio.create_task(self._get_ready())

    def check_ready(self) -> None:
        """See `ServedModel.check_ready`."""
        if self.state in ("on_demand", "loading"):
            got = f"{self.name}, which is got ready at its first use"
            raise ProblemError("model_loading", "a model that is ready", got, "Ask again.", _ASK_AGAIN_S)
        if self.state == "unavailable":
            raise self._unavailable()
        super().check_ready()

    async def close(self) -> None:
        """See `ServedModel.close`."""
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await super().close()

    def describe(self) -> dict[str, Any]:
        """See `ServedModel.describe`."""
        return {**super().describe(), "on_demand": True}

    async def _get_ready(self) -> None:
        try:
            await self.open()
        except Exception as error:  # whatever a runtime raises; the others serve on
            observability.log(f"{self.name} cannot be got ready: {error}")
            await self.discard()
            self._reason = error if isinstance(error, MattingError) else None
            self._try_again_at = time.monotonic() + _TRY_AGAIN_S
            self.state = "unavailable"

    def _unavailable(self) -> ProblemError:
        """Return the problem, in words that tell a stranger nothing of this machine; the log has them all."""
        came = "none that could be opened"
        if isinstance(self._reason, WeightsError):
            came = "none, since its weights are not here, and could not be fetched: the server may have no internet"
        seconds = max(1, math.ceil(self._try_again_at - time.monotonic()))
        remedy = "Choose another model, or try again later; the server's log says more."
        return ProblemError("model_unavailable", f"the model {self.name}", came, remedy, seconds)

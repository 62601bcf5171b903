"""What can be set, by environment variables named `KERAS_MATTING_` and the field's name in capitals, or in code."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keras_matting.errors import UsageError
from keras_matting.shipped import DEFAULT_MODEL, WHOLE_SUBJECT_MODEL

MIB = 2**20
_PREFIX = "KERAS_MATTING_"
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_OF_THE_LIBRARY = {"KERAS_MATTING_HOME", "KERAS_MATTING_TFTRT_PYTHON"}


class ServiceSettings(BaseSettings):
    """The service's settings; lists in variables are separated by commas."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # which may be the key
    )

    models: Annotated[tuple[str, ...], NoDecode] = Field((DEFAULT_MODEL,), min_length=1)
    """Names or folders; the first is the default model."""
    on_demand_models: Annotated[tuple[str, ...] | None, NoDecode] = None
    """Names or folders offered too, but fetched and opened only when asked for; None: see `models_on_demand`."""
    engine: str = "auto"
    host: Annotated[tuple[str, ...], NoDecode] = Field(("127.0.0.1",), min_length=1)
    """Addresses or names to listen at; `::` is every IPv6 address, and where the system can every IPv4 address too."""
    port: int = Field(8000, ge=0, le=65535)
    api_key: SecretStr | None = Field(None, min_length=1)
    """If set, every request has to carry it but those for health, metrics, version, OpenAPI document and page."""

    max_body_mib: float = Field(20, gt=0)
    max_megapixels: float = Field(25, gt=0)
    max_side_px: int = Field(16384, ge=1)
    memory_mib: float = Field(0, ge=0)
    """What the service may take in all; 0: what its control group allows, or all that the machine has."""
    max_items: int = Field(16, ge=1)
    """Photos in one JSON batch."""
    queue: int = Field(64, ge=1)
    """Requests that may be inside at a time; the next is told to come back."""
    streams: int = Field(8, ge=1)
    """Streams of JSON lines among them."""
    deadline_s: float = Field(30, gt=0)
    """From a request's whole body to its answer; also how long a client may take nothing of an answer."""
    body_grace_s: float = Field(10, gt=0)
    """A body may wait this long in all, and a second more for each 32 KiB of it; so long may the headers take, too."""
    client_per_minute: int = Field(0, ge=0)
    """Requests of one client address; 0: as many as it likes."""

    max_batch: int = Field(0, ge=0, le=64)
    """Photos in one run of the engine; 0: the best of benchmark.json, else 1 on a CPU and 8 on a GPU."""
    max_delay_ms: float | None = Field(None, ge=0)
    """How long a batch waits to be filled; by default 0 on a CPU, 5 on a GPU."""
    drain_s: float = Field(1, ge=0)
    """How long after SIGTERM the service says "not ready" and still takes requests."""

    allow_urls: bool = False
    """Whether /api/remove may fetch photos (https, public addresses only)."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("models", "on_demand_models", "host", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _as_a_header_carries_it(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key else ""
        if text != text.strip() or not (text.isascii() and text.isprintable()):
            raise ValueError("printable ASCII without white space around it, since a header carries it")
        return key

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_send_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower().removesuffix("/") for origin in origins)
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"origins like https://shop.example, or *; {origin[:60]!r} is none")
        return origins

    @property
    def models_on_demand(self) -> tuple[str, ...]:
        """The models to open on demand: as set, else the whole subject's beside the default model, and no others."""
        if self.on_demand_models is not None:
            return self.on_demand_models
        return (WHOLE_SUBJECT_MODEL,) if self.models == (DEFAULT_MODEL,) else ()

    @property
    def max_body_bytes(self) -> int:
        """The largest body."""
        return int(self.max_body_mib * MIB)


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Return the names in `environment` that look like a setting, or the library's, and are none."""
    known = {f"{_PREFIX}{field.upper()}" for field in ServiceSettings.model_fields} | _OF_THE_LIBRARY
    return sorted(name for name in environment if name.upper().startswith(_PREFIX) and name.upper() not in known)


def read_settings(**given: Any) -> ServiceSettings:
    """Return the `ServiceSettings` of the environment, with what is given (None: not given) instead.

    Raises `UsageError` on a value that does not fit.
    """
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Value error, ")
        name = ".".join(map(str, first["loc"]))
        received = _told_of_a_key(first["input"]) if name == "api_key" else f"{str(first['input'])[:60]!r}."
        raise UsageError(
            f"Expected the setting {name} (KERAS_MATTING_{name.upper()}) as: {expected}; received {received}"
        ) from None


def _told_of_a_key(given: Any) -> str:
    """Return what is wrong with a key, and the remedy, without a character of it."""
    text = given.get_secret_value() if isinstance(given, SecretStr) else str(given)
    if not text:
        return "an empty one. Set a key, or unset the variable for a service without one."
    if text != text.strip():
        return (
            "one that begins or ends with white space. Store it without a line's end, as printf '%s' KEY > FILE does."
        )
    return "one with other characters. Take letters and digits, as openssl rand -hex 32 gives."

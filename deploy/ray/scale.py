"""What can be set of the cluster; what can be set of the service is `keras_matting_api.settings`."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Scale(BaseModel):
    """How far the application spreads."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(1, ge=1, description="engines at least")
    max_replicas: int = Field(4, ge=1, description="engines at most")
    target_ongoing_requests: float = Field(4, gt=0, description="photos with each engine beyond which another starts")
    max_ongoing_requests: int = Field(16, ge=1, description="photos with each engine at most; the others wait")
    cpus: float = Field(1, ge=0, description="cores that an engine reserves")
    gpus: float = Field(0, ge=0, description="GPUs that an engine reserves, parts allowed")
    ingresses: int = Field(1, ge=1, description="replicas of what talks HTTP")

    @model_validator(mode="after")
    def _ordered(self):
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be min_replicas ({self.min_replicas}) or more")
        return self

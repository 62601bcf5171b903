"""Training: trainers around the models, runs that can be resumed, experiments."""

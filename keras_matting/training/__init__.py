"""Training: trainers around the models and runs that can be resumed."""

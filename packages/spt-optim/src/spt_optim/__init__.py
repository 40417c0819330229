"""LARS, closed-form learning-rate schedules and optimizer factories for pretraining in PyTorch."""

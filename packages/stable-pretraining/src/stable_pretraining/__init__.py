"""Pretrain vision and multi-modal models: dict data, a forward function, live probes, a Manager that survives any cluster."""

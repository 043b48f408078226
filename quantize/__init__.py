"""Decisions about precision: how each matrix of a model is stored and computed, and the measurements they rest on."""

"""Decisions about precision, without any model: what to lower, what to keep, and what that rests on."""

"""Adapt, train, export, and answer closed-book."""

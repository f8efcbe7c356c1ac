"""Atomic writes, locks, signals, and tasks on threads or a cluster."""

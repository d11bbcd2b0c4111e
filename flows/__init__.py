"""Prefect tasks, the flow and the command line around :mod:`pipeline`."""

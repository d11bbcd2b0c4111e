"""Prepared sets and rankings in other tools' formats."""

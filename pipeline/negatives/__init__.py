"""SCORES -> SELECTION: which negatives to keep, with what weight, and why.

``context`` gives the columns a strategy may read, ``guards`` set likely false negatives aside,
``strategies`` choose among the rest, ``arms`` names the combinations, and ``select`` puts them together.
"""

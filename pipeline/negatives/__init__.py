"""SCORES -> SELECTION: which negatives to keep, with what weight, and why.

``context`` and ``training`` give the columns a strategy may read, ``guards`` set likely false negatives aside,
``strategies`` choose among the rest (those in ``sampling`` at random), ``budget`` says how many, ``arms`` names
the combinations, and ``select`` puts them together; ``dynamic`` does so again while a ranker grows.
"""

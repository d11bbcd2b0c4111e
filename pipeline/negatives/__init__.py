"""SCORES -> SELECTION -> PREPARED: which negatives to keep, with what weight, and why.

``context`` and ``training`` give the columns that guards and strategies read. ``guards`` exclude likely false
negatives; ``strategies`` choose among the rest (those in ``sampling`` at random); ``budget`` says how many;
``limits`` cuts queries that are too long; ``arms`` names the combinations. ``select`` puts them together, ``blocks``
reads and writes, ``prepare`` copies the kept rows, and ``dynamic`` selects again while a ranker grows.
"""

"""What every room stands on: errors, settings, table contracts, paths, atomic files, records, randomness.

Nothing here knows a stage; everything else may import it.
"""

"""JUDGMENTS -> SCORES, PREPARED -> model: LambdaMART behind fit, predict and binning.

The only room that knows LightGBM. Trainings run in worker processes (``processes``, ``worker``), because LightGBM
may take its process down.
"""

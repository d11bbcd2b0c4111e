"""Ranksieve: keep the negatives that teach a ranker, and prove it with NDCG.

One rule holds the house together: a stage is a pure function from tables to tables; a step is a value that says which
stage to run on which files; one ``execute`` runs steps. Nothing here imports Prefect; :mod:`flows` wraps these
functions and holds no logic.

The stages, in order, and the rooms they are in::

    SOURCE --dataset--> JUDGMENTS --ranker.score--> SCORES --negatives--> SELECTION --> PREPARED
                            |                                                             |
                            |                                                        ranker.fit
                            |                                                             |
                            +------ vali, test (never filtered) ------evaluation <------model
                                                                          |
                                                  report <-- SUMMARY <-- METRICS

An arm that chooses again turns the middle around: its ranker is trained on SCORES and JUDGMENTS, choosing as it grows,
and SELECTION is what it chose last. A search tries many arms on the validation lists first, with few trees, and takes
the best of them through the stages above.

``core`` is what every room stands on; ``run`` makes steps of the stages and executes them; ``export``, ``inspect`` and
``synthetic`` stand beside. Imports point one way: core, dataset, ranker, evaluation, negatives, report, run, export
and inspect.
"""

"""Ranksieve: keep the negatives that teach a ranker, and prove it with NDCG.

One rule holds the house together: a stage is a pure function from tables to tables, with a thin ``run``
at its edge that reads and writes paths. Nothing here imports Prefect; :mod:`flows` wraps these functions
and holds no logic.

The stages, in order::

    LETOR text --ingest--> JUDGMENTS --score--> SCORES --negatives--> SELECTION --prepare--> PREPARED
                              |                                                                  |
                              |                                                                train
                              |                                                                  |
                              +------ vali, test (never filtered) --------evaluate <-----------model
                                                                              |
                                                  report <-- SUMMARY <--compare-- METRICS

A dynamic arm turns the middle around: its ranker is trained on SCORES and JUDGMENTS, choosing as it grows, and
SELECTION is what it chose last.

A search (:mod:`pipeline.run.search_job`) tries many arms on the validation lists first, with few trees, and then takes
the best of them through the stages above.

Below them, in the direction imports point: ``letor``, ``folds``, ``ndcg``, ``ranker``; and at the bottom
``errors``, ``tables``, ``config``, ``store``.
"""

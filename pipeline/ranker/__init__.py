"""JUDGMENTS -> SCORES, PREPARED -> model: LambdaMART. The only room that knows LightGBM.

The face, which other rooms call::

    score      the initial rankers, and SCORES by them
    fit        trains rankers and bins splits, in a worker process; LightGBM's parameters and limits
    predict    scores of rows by model files, in this process
    bin_cache  the binned splits of a run
    processes  the worker pool; in a worker, its main loop and events
    boosting   in a worker: rankers that change the rows they train on as they grow

Behind it: ``worker`` (what a worker does), ``datasets`` and ``binning`` (Parquet into LightGBM), ``trees`` (scores by
a model's trees, without LightGBM).
"""

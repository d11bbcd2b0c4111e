"""SOURCE -> JUDGMENTS: find the files of a source, read LETOR text or Parquet, write the dataset.

``sources`` finds the files, ``archive`` lists and unpacks packed ones, ``letor`` and ``parquet`` read them.
``ingest`` makes the dataset: ``staging`` writes what is read, ``regroup`` brings it into its final form.
``folds`` says which splits train, validate and test, ``parts`` is how tables lie on disk.
"""

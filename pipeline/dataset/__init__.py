"""SOURCE -> JUDGMENTS: find the files of a source, read LETOR text or Parquet, write the dataset.

``sources`` finds the files, ``archive`` looks into packed ones, ``letor`` and ``parquet`` read them, ``ingest``
writes the dataset, ``folds`` says which splits train, validate and test, ``parts`` is how tables lie on disk.
"""

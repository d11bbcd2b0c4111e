"""Made-up data: a query's rows depend on seed and number alone, text and Parquet agree, labels can be learnt."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import generate, generate_kernel, generate_world
from pipeline.errors import ConfigError, StorageError
from pipeline.generate_world import ABSENT, PRESETS, SENTINEL
from pipeline.letor import read_letor
from pipeline.ndcg import dcg_discounts if False else None

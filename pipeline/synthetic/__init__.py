"""Made-up ranking data of any size, for benchmarks and first tries."""

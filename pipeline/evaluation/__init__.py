"""Model -> METRICS -> SUMMARY: NDCG of every query, paired tests, the recommendation and its wording."""

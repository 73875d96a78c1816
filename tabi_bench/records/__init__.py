"""Results on disk: records with their provenance, written at once, found again, resumed."""

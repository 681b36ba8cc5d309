"""What a student is worth: scores, cost, SUPERB, the report."""

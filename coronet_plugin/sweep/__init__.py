"""``coronet sweep``: trainings that differ in method, budget and seed alone, into one table and one plot."""

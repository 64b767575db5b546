"""From rows to tables and figures: statistics, Pareto front, pictures, one HTML page. No torch."""

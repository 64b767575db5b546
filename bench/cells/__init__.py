"""What one unit of work measures: accuracy, training, counts, memory, time, ceilings."""

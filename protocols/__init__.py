"""One file per table or figure of the paper: the grid of cells, and how its rows are shown."""

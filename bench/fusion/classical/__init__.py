"""Methods without training, as in DLPan-Toolbox (commit a34f884): same steps, same filters."""

"""Deep methods: a network from (ms, pan, lms) to the fused image, one file each."""

"""Array operations without parameters or modules: convolution, pooling, normalization."""

"""Operations on arrays: convolution, pooling, normalization. No parameters, no modules."""

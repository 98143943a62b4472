"""What makes MLX fast on the CPU: a BLAS, matmuls of dequantized weights, both cores."""

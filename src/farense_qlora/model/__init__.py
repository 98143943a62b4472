"""The base model in 4 bits, adapters, the fast operations and the miniature."""

from .blas import denormals_flushed, use_fast_blas

with denormals_flushed():
    use_fast_blas()  # before anything imports mlx
    import mlx.core as mx

    mx.eval(mx.zeros(1) + 1)  # starts the thread that computes what is not put on a stream of its own

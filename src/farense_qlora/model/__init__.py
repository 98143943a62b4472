"""The base model in 4 bits, adapters, the fast operations and the miniature."""

from .cpu.blas import denormals_flushed, use_fast_blas

with denormals_flushed():
    use_fast_blas()  # before anything imports mlx
    import mlx.core as mx

    # Starts the thread that computes what is not on a stream of its own. To evaluate anything would fix,
    # before the model is known, how widely MLX looks for work: see model/cpu/ops.py.
    mx.synchronize()

"""What a model owner needs around the runtime: training, evaluation, benchmarks, synthetic data.

Knows the other three packages; none of them knows this one.
"""

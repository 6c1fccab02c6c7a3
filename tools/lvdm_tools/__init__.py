"""What a model owner needs around the runtime: training, evaluation, benchmarks, synthetic data."""

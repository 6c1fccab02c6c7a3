"""What runs graphs, a package for each engine library; imported only when it is asked for.

Knows bundles and sessions; nothing of how a backend is chosen, of sampling or of torch.
"""

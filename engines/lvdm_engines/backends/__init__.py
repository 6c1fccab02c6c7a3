"""What runs graphs, a package for each engine library; imported only when it is asked for.

`backend.py` says what a backend offers and lists them in the order in which they are tried;
`lvdm_engines.opening` chooses one and imports it. Knows bundles and sessions; nothing of sampling
or of torch.
"""

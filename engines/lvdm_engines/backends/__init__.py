"""One module per engine library; each is imported only when its backend is asked for."""

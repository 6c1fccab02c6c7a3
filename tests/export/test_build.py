from lvdm_engines.bundle import Bundle


def test_graphs_of_one_checkpoint_share_a_file(bundle: Bundle) -> None:
    graphs = bundle.manifest.graphs
    assert graphs["predict"] == graphs["interpolate"]
    assert set(graphs) == {"encoder", "decoder", "predict", "interpolate"}

"""Live evaluation callbacks for any LightningModule: linear probe, kNN, RankMe and more, at almost no cost."""

"""Dict-shaped datasets, transforms and a Lightning DataModule for pretraining, with a bundled sample data set."""

"""Data in, a trained model out: sources of batches and one loop over them."""

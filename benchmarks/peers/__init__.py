"""What an expert would write without metadarts: the same networks and meta-steps in plain PyTorch and its libraries."""

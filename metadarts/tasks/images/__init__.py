"""Images from files: found in folders, decoded, brought to one form, and kept as one mapped array."""

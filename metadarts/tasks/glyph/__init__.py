"""The characters that are built in: outlines of fonts, distorted, drawn, and told apart."""

"""What is read from files with care: schemas, sizes, atomic writes."""

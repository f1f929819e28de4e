"""Safe reading and writing of files: schemas, sizes, atomic writes."""

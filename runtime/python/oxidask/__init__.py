"""The Python that Oxidask runs beside its Rust processes."""

"""Items as steps of fixed shape, which the executor takes as data."""

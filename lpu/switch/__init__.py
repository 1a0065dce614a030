"""Another model on the same rack: its weights come while the first one runs, or when it has stopped."""

"""The numbers contract: the op vocabulary, its exact functions, its plain f32 ones."""

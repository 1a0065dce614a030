"""The cases of `lpu validate`: published figures of GroqChip1 and its racks, held against our models."""

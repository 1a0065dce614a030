"""Functions of one number under the contract: exponentials, and what is made of them and of tables."""

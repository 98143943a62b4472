"""From the tables of facts to packed batches: facts, questions, rows, tokens, batches."""

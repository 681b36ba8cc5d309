"""The same numbers as plain torch, faster: one module a form."""

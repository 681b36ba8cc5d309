"""The report on distillations: what is gathered, drawn and written."""

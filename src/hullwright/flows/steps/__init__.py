"""The steps that flows are made of, one file per thing that they act on."""

"""The vocabulary of the house: states, errors and frozen records that pass between rooms. Imports nothing of ours."""

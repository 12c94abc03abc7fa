"""The scheduler: which host a build goes to, and why the others were not it."""

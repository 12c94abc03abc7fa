"""The `hullwright` command. One file per noun; resources are asked of the API, hosts and the database directly."""

"""JSON schemas of request bodies, one module per resource, one schema per window of microversions. Data only; see `api.validation`."""

"""The database: tables, one repository module per aggregate, the TaskFlow store and the jobboard."""

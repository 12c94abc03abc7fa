"""What happens, in order: one file per operation with its graph factory; the steps are in `steps/`.

A factory's dotted path, a step's name and the names of what steps provide are stored with every open flow: they change only together with a
new version of the factory, and the old one stays while flows made by it are open.
"""

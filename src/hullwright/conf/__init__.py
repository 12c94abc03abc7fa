"""Options, one file per group. `opts.load` reads them; objects get the options passed, there is no global."""

"""A generator live in the browser: a static page for a run, with all that it needs in one folder."""

"""How fast generators are, dense beside slim, in runtimes by number formats by threads: ``coronet bench``."""
